//! `profile.proto` of pprof, as far as it is written here: strings, functions and places stand in tables, samples refer to
//! them by number. <https://github.com/google/pprof/blob/main/proto/profile.proto>

use crate::symbols::{Call, Frame};
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use std::collections::HashMap;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Root {
    #[prost(message, repeated, tag = "1")]
    pub sample_types: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    pub locations: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub functions: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    pub strings: Vec<String>,
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    pub period: i64,
    #[prost(int64, repeated, tag = "13")]
    pub comments: Vec<i64>,
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
}

/// Indices of strings.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct ValueType {
    #[prost(int64, tag = "1")]
    pub kind: i64,
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sample {
    /// The innermost first.
    #[prost(uint64, repeated, tag = "1")]
    pub locations: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub values: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    pub labels: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Label {
    #[prost(int64, tag = "1")]
    pub key: i64,
    #[prost(int64, tag = "2")]
    pub text: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Location {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Several where calls were inlined, the innermost first.
    #[prost(message, repeated, tag = "4")]
    pub lines: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub(crate) struct Line {
    #[prost(uint64, tag = "1")]
    pub function: u64,
    #[prost(int64, tag = "2")]
    pub line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Function {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(int64, tag = "2")]
    pub name: i64,
    #[prost(int64, tag = "4")]
    pub file: i64,
}

/// A profile in the making.
#[derive(Debug)]
pub struct Profile {
    root: Root,
    strings: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<Vec<Line>, u64>,
}

impl Profile {
    /// Without samples; `types` are what is measured and its unit, such as `("cpu", "nanoseconds")`.
    pub fn new(types: &[(&str, &str)]) -> Profile {
        let mut profile = Profile {
            root: Root::default(),
            strings: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
        };
        // The first string is the empty one.
        profile.string("");
        profile.root.sample_types = types.iter().map(|of| profile.value_type(*of)).collect();
        profile.root.time_nanos = nanos(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        profile
    }

    /// What lies between two samples.
    #[must_use]
    pub fn with_period(mut self, kind: (&str, &str), period: i64) -> Profile {
        self.root.period_type = Some(self.value_type(kind));
        self.root.period = period;
        self
    }

    /// What tools show first; else it is the last type.
    #[must_use]
    pub fn showing(mut self, kind: &str) -> Profile {
        self.root.default_sample_type = self.string(kind);
        self
    }

    /// How long it was measured.
    #[must_use]
    pub fn over(mut self, duration: Duration) -> Profile {
        self.root.duration_nanos = nanos(duration);
        self
    }

    /// What its reader has to know.
    #[must_use]
    pub fn remarking(mut self, text: &str) -> Profile {
        let text = self.string(text);
        self.root.comments.push(text);
        self
    }

    /// Adds a sample: a value of each type, seen in `stack`, whose innermost frame comes first.
    pub fn add<'a>(&mut self, stack: impl IntoIterator<Item = &'a Frame>, values: &[i64], labels: &[(&str, &str)]) {
        let locations = stack.into_iter().map(|frame| self.location(frame)).collect();
        let labels =
            labels.iter().map(|(key, text)| Label { key: self.string(key), text: self.string(text) }).collect();
        self.root.samples.push(Sample { locations, values: values.to_vec(), labels });
    }

    /// The whole, gzipped, as pprof's tools and collectors take it.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
        zip.write_all(&self.root.encode_to_vec()).expect("memory takes what is written");
        zip.finish().expect("memory takes what is written")
    }

    fn value_type(&mut self, (kind, unit): (&str, &str)) -> ValueType {
        ValueType { kind: self.string(kind), unit: self.string(unit) }
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(known) = self.strings.get(text) {
            return *known;
        }
        let index = self.root.strings.len() as i64;
        self.root.strings.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    fn location(&mut self, frame: &Frame) -> u64 {
        let lines: Vec<Line> = frame.0.iter().map(|call| self.line(call)).collect();
        let next = self.root.locations.len() as u64 + 1;
        *self.locations.entry(lines).or_insert_with_key(|lines| {
            self.root.locations.push(Location { id: next, lines: lines.clone() });
            next
        })
    }

    fn line(&mut self, call: &Call) -> Line {
        let (name, file) = (self.string(&call.name), self.string(&call.file));
        let next = self.root.functions.len() as u64 + 1;
        let function = *self.functions.entry((name, file)).or_insert_with(|| {
            // No system name: tools take those that have the same for C++ and cut out what stands in angle brackets.
            self.root.functions.push(Function { id: next, name, file });
            next
        });
        Line { function, line: i64::from(call.line) }
    }
}

pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn frame(calls: &[(&str, u32)]) -> Frame {
        Frame(
            calls.iter().map(|(name, line)| Call { name: (*name).into(), file: "a.rs".into(), line: *line }).collect(),
        )
    }

    #[test]
    fn what_is_the_same_stands_in_the_tables_once() {
        let mut profile = Profile::new(&[("samples", "count"), ("cpu", "nanoseconds")])
            .with_period(("cpu", "nanoseconds"), 10)
            .over(Duration::from_secs(1))
            .remarking("of a test");
        let (outer, inlined) = (frame(&[("outer", 1)]), frame(&[("inner", 3), ("middle", 2)]));
        profile.add([&inlined, &outer], &[2, 20], &[("thread", "core")]);
        profile.add([&outer], &[1, 10], &[("thread", "core")]);
        let mut plain = Vec::new();
        let packed = profile.into_bytes();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
        let root = Root::decode(&plain[..]).unwrap();
        let text = |index: i64| root.strings[usize::try_from(index).unwrap()].as_str();
        assert_eq!(text(0), "");
        let types: Vec<_> = root.sample_types.iter().map(|of| (text(of.kind), text(of.unit))).collect();
        assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
        assert_eq!((root.samples.len(), root.locations.len(), root.functions.len()), (2, 2, 3));
        assert_eq!(root.samples[0].locations, [1, 2]);
        assert_eq!(root.samples[1].locations, [2]);
        let names: Vec<_> =
            root.locations[0].lines.iter().map(|line| text(root.functions[line.function as usize - 1].name)).collect();
        assert_eq!(names, ["inner", "middle"], "inlined calls share a place");
        assert_eq!(text(root.samples[1].labels[0].text), "core");
        assert_eq!((root.period, root.duration_nanos, text(root.comments[0])), (10, 1_000_000_000, "of a test"));
    }
}

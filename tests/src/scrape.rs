//! A `/metrics` page, taken apart: what there is, not how much of it.

use std::collections::{BTreeMap, BTreeSet};

/// One metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// `counter`, `gauge`, `histogram`, `summary`.
    pub kind: String,
    /// Each set of labels that there is, `le` and `quantile` left out: with the values of those that name something fixed,
    /// else with the names alone.
    pub labels: BTreeSet<String>,
    /// Bounds of buckets, and quantiles, as numbers.
    pub bounds: BTreeSet<String>,
}

/// Labels whose values are the same on every server that did the same.
const FIXED: [&str; 11] = [
    "type",
    "name",
    "stage",
    "status",
    "grpc_type",
    "grpc_service",
    "grpc_method",
    "grpc_code",
    "op",
    "success",
    "code",
];

/// All metrics of a page by name.
pub fn families(page: &str) -> BTreeMap<String, Family> {
    let mut all: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a name and a type");
            current = name.to_owned();
            all.insert(current.clone(), Family { kind: kind.to_owned(), ..Family::default() });
        } else if !line.starts_with('#') && !line.is_empty() {
            let family = all.get_mut(&current).unwrap_or_else(|| panic!("{line} has no type"));
            note(family, line);
        }
    }
    all
}

/// The value of a line that begins so.
pub fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn note(family: &mut Family, line: &str) {
    let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
    let mut set = BTreeSet::new();
    for pair in labels.split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').expect("a label");
        match name {
            "le" | "quantile" => {
                let bound: f64 = value.trim_matches('"').replace("+Inf", "inf").parse().expect("a number");
                family.bounds.insert(format!("{bound:.6}"));
            }
            _ if FIXED.contains(&name) => drop(set.insert(pair.to_owned())),
            _ => drop(set.insert(name.to_owned())),
        }
    }
    family.labels.insert(set.into_iter().collect::<Vec<_>>().join(","));
}

/// Where two pages differ, a line each, which begins with the metric's name.
pub fn differences(theirs: &str, ours: &str) -> Vec<String> {
    let (theirs, ours) = (families(theirs), families(ours));
    let mut found = Vec::new();
    for (name, family) in &theirs {
        let Some(own) = ours.get(name) else {
            found.push(format!("{name}: missing"));
            continue;
        };
        if family.kind != own.kind {
            found.push(format!("{name}: {} there, {} here", family.kind, own.kind));
        }
        if family.bounds != own.bounds {
            found.push(format!("{name}: bounds {:?} there, {:?} here", family.bounds, own.bounds));
        }
        found.extend(family.labels.difference(&own.labels).map(|labels| format!("{name}: without {{{labels}}}")));
        found.extend(own.labels.difference(&family.labels).map(|labels| format!("{name}: with {{{labels}}}")));
    }
    found.extend(ours.keys().filter(|name| !theirs.contains_key(*name)).map(|name| format!("{name}: only here")));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP a x\n# TYPE a histogram\na_bucket{op=\"Put\",le=\"0.1\"} 1\na_bucket{op=\"Put\",le=\"+Inf\"} 1\n\
                        a_sum{op=\"Put\"} 0.5\na_count{op=\"Put\"} 1\n# TYPE b gauge\nb 2e+09\n";

    #[test]
    fn pages_are_compared_by_what_there_is() {
        assert_eq!(differences(PAGE, PAGE), Vec::<String>::new());
        assert_eq!(differences(PAGE, &PAGE.replace("0.5", "7").replace("} 1", "} 9")), Vec::<String>::new());
        assert_eq!(differences(PAGE, &PAGE.replace("gauge", "counter")), ["b: gauge there, counter here"]);
        assert_eq!(differences(PAGE, &PAGE.replace("Put", "Txn")).len(), 2);
        assert_eq!(differences(PAGE, &PAGE.replace("0.1", "0.2")).len(), 1);
        assert_eq!(value(PAGE, "b"), Some(2e9));
        assert_eq!(value(PAGE, "a_count{op=\"Put\"}"), Some(1.0));
    }
}

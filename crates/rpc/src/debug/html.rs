//! What both pages of golang.org/x/net/trace have in common: their arguments, the look of tables, times.

use crate::answers::Body;
use crate::health::pairs;
use crate::plain::answer;
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Write as _;
use std::time::Duration;

/// What a query asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Whose list: a family and the number of one of its columns, -1 for what goes on.
    pub list: Option<(String, i64)>,
    /// With all events.
    pub expanded: bool,
    /// Those alone that belong to a trace of somebody else's. Here none do.
    pub traced: bool,
}

impl Asked {
    pub fn of(query: &str) -> Asked {
        let given = pairs(query);
        let first = |name: &str| given.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let family = first("fam").filter(|family| !family.is_empty());
        let column = first("b").and_then(|column| column.parse().ok()).filter(|column| *column >= -1);
        let flag = |name| first(name).is_some_and(|value| go::parse_bool(value) == Ok(true));
        Asked { list: family.map(str::to_owned).zip(column), expanded: flag("exp"), traced: flag("rtraced") }
    }
}

pub(super) fn page(text: String) -> Response<Body> {
    answer(StatusCode::OK, HeaderValue::from_static("text/html; charset=utf-8"), text)
}

/// The head of a page.
pub(super) fn head(title: &str, name: &str, table: &str, expanded: bool) -> String {
    let bold = if expanded { "font-weight: bold;" } else { "" };
    format!(
        "<html>\n<head>\n<title>{title}</title>\n<style type=\"text/css\">\n\
         body {{ font-family: sans-serif; }}\n\
         table#{table} td.family {{ padding-right: 2em; }}\n\
         table#{table} td.active {{ padding-right: 1em; }}\n\
         table#{table} td.latency-first {{ padding-left: 1em; }}\n\
         table#{table} td.empty {{ color: #aaa; }}\n\
         table#reqs {{ margin-top: 1em; }}\n\
         table#reqs tr.first {{ {bold} }}\n\
         table#reqs td {{ font-family: monospace; }}\n\
         table#reqs td.when {{ text-align: right; white-space: nowrap; }}\n\
         table#reqs td.elapsed {{ padding: 0 0.5em; text-align: right; white-space: pre; width: 10em; }}\n\
         </style>\n</head>\n<body>\n<h1>{name}</h1>\n"
    )
}

/// A cell that leads to a list, where there is something in it.
pub(super) fn cell(out: &mut String, class: &str, list: (&str, i64), expanded: bool, text: &str, empty: bool) {
    let (family, column) = list;
    let class = [class, if empty { "empty" } else { "" }].join(" ");
    // Writing to a String can't fail.
    let _ = match empty {
        true => writeln!(out, "<td class=\"{}\">[{text}]</td>", class.trim()),
        false => {
            let exp = if expanded { "&exp=1" } else { "" };
            let link = format!("<a href=\"?fam={family}&b={column}{exp}\">[{text}]</a>");
            writeln!(out, "<td class=\"{}\">{link}</td>", class.trim())
        }
    };
}

/// A line of a list.
pub(super) fn row(out: &mut String, first: bool, when: &str, elapsed: &str, what: &str) {
    let class = if first { " class=\"first\"" } else { "" };
    // Writing to a String can't fail.
    let _ = writeln!(
        out,
        "<tr{class}><td class=\"when\">{when}</td><td class=\"elapsed\">{elapsed}</td><td>{}</td></tr>",
        escaped(what)
    );
}

/// A link, or bare text where it leads to this very page.
pub(super) fn choice(out: &mut String, here: bool, query: &str, text: &str) {
    // Writing to a String can't fail.
    let _ = match here {
        true => writeln!(out, "[{text}]"),
        false => writeln!(out, "<a href=\"?{query}\">[{text}]</a>"),
    };
}

pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// `2026/11/22 17:55:27.271042`.
pub(super) fn date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y/%m/%d %H:%M:%S%.6f").to_string()
}

/// `17:55:27.271042`, with its day where that is another than the one before.
pub(super) fn time(at: Timestamp, before: Timestamp) -> String {
    let (at, before) = (at.to_zoned(TimeZone::system()), before.to_zoned(TimeZone::system()));
    let form = if at.date() == before.date() { "%H:%M:%S%.6f" } else { "%Y/%m/%d %H:%M:%S%.6f" };
    at.strftime(form).to_string()
}

pub(super) fn seconds(elapsed: Duration) -> String {
    format!("{:.6}", elapsed.as_secs_f64())
}

/// The same between two events: below a second, zeros in front are left blank.
pub(super) fn since(elapsed: Duration) -> String {
    let text = seconds(elapsed);
    if elapsed >= Duration::from_secs(1) {
        return text;
    }
    let significant = text.bytes().position(|c| !matches!(c, b'0' | b'.')).unwrap_or(text.len());
    let blank = |(at, c): (usize, char)| if at < significant && c == '0' { ' ' } else { c };
    text.char_indices().map(blank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_choose_a_list() {
        let asked = Asked::of("fam=grpc.Recv.etcdserverpb.KV&b=-1&exp=1&rtraced=0");
        let list = Some(("grpc.Recv.etcdserverpb.KV".to_owned(), -1));
        assert_eq!(asked, Asked { list, expanded: true, traced: false });
        for none in ["", "fam=x", "b=1", "fam=&b=1", "fam=x&b=-2", "fam=x&b=y"] {
            assert_eq!(Asked::of(none).list, None, "{none}");
        }
    }

    #[test]
    fn times_are_shown_as_in_go() {
        for (micros, text) in [(10, " .    10"), (1358, " .  1358"), (100_000, " .100000"), (1_500_000, "1.500000")] {
            assert_eq!(since(Duration::from_micros(micros)), text);
        }
        assert_eq!(since(Duration::ZERO), " .      ");
        assert_eq!(escaped("<a \"b\">&'"), "&lt;a &#34;b&#34;&gt;&amp;&#39;");
    }
}

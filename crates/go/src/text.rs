//! `strconv.Quote`, `encoding/json`, `encoding/csv`, and other texts.

use std::fmt::Write as _;

/// `strconv.Quote`, for bytes that need not be UTF-8.
pub fn quote(text: impl AsRef<[u8]>) -> String {
    let bytes = text.as_ref();
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| quote_char(&mut out, c));
        for byte in chunk.invalid() {
            // Writing to a String can't fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn quote_char(out: &mut String, c: char) {
    let _ = match c {
        '"' => write!(out, "\\\""),
        '\\' => write!(out, "\\\\"),
        '\u{7}' => write!(out, "\\a"),
        '\u{8}' => write!(out, "\\b"),
        '\u{c}' => write!(out, "\\f"),
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        '\u{b}' => write!(out, "\\v"),
        c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(out, "\\x{:02x}", c as u32),
        c if is_printable(c) => write!(out, "{c}"),
        c if (c as u32) < 0x10000 => write!(out, "\\u{:04x}", c as u32),
        c => write!(out, "\\U{:08x}", c as u32),
    };
}

/// Whether all of it is text that can be shown as it is (`unicode.IsPrint`).
pub fn is_shown(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.chars().all(is_printable))
}

/// Near enough to `strconv.IsPrint`: control, format, private and separator characters are not printed as they are.
fn is_printable(c: char) -> bool {
    let n = c as u32;
    let separator = c.is_whitespace() && c != ' ';
    let format = matches!(n, 0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e
        | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb | 0xe000..=0xf8ff | 0xe0000..=0xe0fff | 0xf0000..);
    let replacement_of_nothing = n == 0xfffe || n == 0xffff;
    !(c.is_control() || separator || format || replacement_of_nothing)
}

/// `strconv.Unquote` of a text in double quotes, single quotes or backquotes; `None` where Go fails.
pub fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let (quote, inner) = match text {
        [q, inner @ .., end] if q == end => (*q, inner),
        _ => return None,
    };
    match quote {
        b'`' if !inner.contains(&b'`') => Some(inner.iter().copied().filter(|b| *b != b'\r').collect()),
        b'"' => {
            let mut out = Vec::new();
            let mut rest = inner;
            while let Some((first, after)) = rest.split_first() {
                rest = match first {
                    b'"' | b'\n' => return None,
                    b'\\' => unescape(after, &mut out)?,
                    byte => {
                        out.push(*byte);
                        after
                    }
                };
            }
            Some(out)
        }
        _ => None,
    }
}

/// One escape sequence behind its backslash. Answers what follows it.
fn unescape<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (letter, after) = rest.split_first()?;
    let simple = match letter {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' | b'"' => *letter,
        b'x' => {
            let (value, after) = number(after, 2, 16)?;
            out.push(u8::try_from(value).ok()?);
            return Some(after);
        }
        b'u' | b'U' => {
            let (value, after) = number(after, if *letter == b'u' { 4 } else { 8 }, 16)?;
            out.extend(char::from_u32(value)?.to_string().as_bytes());
            return Some(after);
        }
        b'0'..=b'7' => {
            let (value, after) = number(rest, 3, 8)?;
            out.push(u8::try_from(value).ok()?);
            return Some(after);
        }
        _ => return None,
    };
    out.push(simple);
    Some(after)
}

fn number(text: &[u8], digits: usize, radix: u32) -> Option<(u32, &[u8])> {
    let (digits, after) = text.split_at_checked(digits)?;
    let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_alphanumeric()))?;
    Some((u32::from_str_radix(digits, radix).ok()?, after))
}

/// How `fmt` prints a list of texts with `%q`.
pub fn quote_all(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(quote).collect();
    format!("[{}]", quoted.join(" "))
}

/// Sizes as `humanize.Bytes` prints them: base 1000, one decimal below 10.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let exponent = (bytes as f64).log(1000.0).floor();
    let value = (bytes as f64 / 1000f64.powf(exponent) * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS.get(exponent as usize).copied().unwrap_or("EB");
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{} {unit}", value.round_ties_even()) }
}

/// A comma separated list as `encoding/csv` reads one line: items in quotes may hold commas.
///
/// # Errors
/// A quote at the wrong place.
pub fn split_csv(text: &str) -> Result<Vec<String>, String> {
    let mut items = Vec::new();
    if text.is_empty() {
        return Ok(items);
    }
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(',').unwrap_or(rest.len());
            let item = &rest[..end];
            if let Some(at) = item.find('"') {
                let column = text.len() - rest.len() + at + 1;
                return Err(format!("parse error on line 1, column {column}: bare \" in non-quoted field"));
            }
            items.push(item.to_owned());
            match rest.get(end + 1..) {
                Some(after) => rest = after,
                None => return Ok(items),
            }
            continue;
        };
        let mut item = String::new();
        let mut inner = quoted;
        let after = loop {
            let unclosed = "parse error on line 1, column 1: extraneous or missing \" in quoted-field";
            let (before, after) = inner.split_once('"').ok_or(unclosed)?;
            item += before;
            match after.strip_prefix('"') {
                Some(more) => {
                    item.push('"');
                    inner = more;
                }
                None => break after,
            }
        };
        items.push(item);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(items),
            None => return Err("parse error on line 1, column 1: extraneous or missing \" in quoted-field".into()),
        }
    }
}

/// A text as `encoding/json` writes it: `<`, `>`, `&` and U+2028/9 escaped.
pub fn json_string(text: &str) -> String {
    json(text, &['<', '>', '&', '\u{2028}', '\u{2029}'])
}

/// A text as zap's log lines have it: JSON, no more escaped than must be.
pub fn log_string(text: &str) -> String {
    json(text, &[])
}

fn json(text: &str, also_escaped: &[char]) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        let _ = match c {
            '"' => write!(out, "\\\""),
            '\\' => write!(out, "\\\\"),
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            '\u{8}' => write!(out, "\\b"),
            '\u{c}' => write!(out, "\\f"),
            c if (c as u32) < 0x20 || also_escaped.contains(&c) => write!(out, "\\u{:04x}", c as u32),
            c => write!(out, "{c}"),
        };
    }
    out.push('"');
    out
}

/// An operating system's error in Go's words, which are libc's in lower case; another error's own.
pub fn os_text(e: &std::io::Error) -> String {
    let text = e.to_string();
    let Some((plain, _)) = text.split_once(" (os error") else { return text };
    let mut chars = plain.chars();
    chars.next().map(|first| first.to_lowercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_is_gos() {
        assert_eq!(quote("a\u{1}é\"\\".as_bytes()), r#""a\x01é\"\\""#);
        assert_eq!(quote(b"a\xff\n"), r#""a\xff\n""#);
        assert_eq!(quote("\u{200b}\u{a0}".as_bytes()), r#""\u200b\u00a0""#);
        assert_eq!(unquote(br#""a\x01\u00e9\n\101""#).unwrap(), "a\u{1}é\nA".as_bytes());
        assert_eq!(unquote(b"`a\\n`").unwrap(), b"a\\n");
        for bad in [&b"a"[..], b"\"a", b"\"a\\q\"", b"\"\"\"", b"'ab'", b"\""] {
            assert_eq!(unquote(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_humanized() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (12, "12 B"),
            (999, "999 B"),
            (1500, "1.5 kB"),
            (43_212_345, "43 MB"),
            (20_480, "20 kB"),
            (237_568, "238 kB"),
            (2_147_483_648, "2.1 GB"),
            (999_999, "1000 kB"),
            (1_000, "1.0 kB"),
        ] {
            assert_eq!(bytes_text(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn lists_may_quote_commas() {
        assert_eq!(split_csv("a,b").unwrap(), ["a", "b"]);
        assert_eq!(split_csv("").unwrap(), [""; 0]);
        assert_eq!(split_csv("a,").unwrap(), ["a", ""]);
        assert_eq!(split_csv("\"a,\"\"b\",c").unwrap(), ["a,\"b", "c"]);
        assert!(split_csv("a\"b").is_err() && split_csv("\"a").is_err());
    }
}

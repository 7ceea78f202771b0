//! Go's text forms (`strconv`, `time`, `encoding/json`, `encoding/csv`): what Go accepts the tools accept, and the error
//! texts are Go's, because scripts look for them.

use std::fmt::Write as _;
use std::time::Duration;

const NS_PER_US: u128 = 1_000;
const NS_PER_MS: u128 = 1_000_000;
const NS_PER_S: u128 = 1_000_000_000;

/// `strconv.Quote`, for bytes that need not be UTF-8.
pub fn quote(bytes: &[u8]) -> String {
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

fn syntax(function: &str, text: &str) -> String {
    format!("strconv.{function}: parsing {}: invalid syntax", quote(text.as_bytes()))
}

fn range(function: &str, text: &str) -> String {
    format!("strconv.{function}: parsing {}: value out of range", quote(text.as_bytes()))
}

/// `strconv.ParseBool`.
///
/// # Errors
/// Anything but Go's twelve spellings.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(syntax("ParseBool", text)),
    }
}

/// `strconv.ParseUint(text, base, 64)`; base 0 reads `0x`, `0o`, `0b`, octal and underscores.
///
/// # Errors
/// Go's text.
pub fn parse_uint(text: &str, base: u32) -> Result<u64, String> {
    match magnitude(text, base) {
        Some(value) => u64::try_from(value).map_err(|_| range("ParseUint", text)),
        None => Err(syntax("ParseUint", text)),
    }
}

/// `strconv.ParseInt(text, base, 64)`.
///
/// # Errors
/// Go's text.
pub fn parse_int(text: &str, base: u32) -> Result<i64, String> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let value = magnitude(digits, base).ok_or_else(|| syntax("ParseInt", text))?;
    let value = i128::try_from(value).map_err(|_| range("ParseInt", text))?;
    i64::try_from(if negative { -value } else { value }).map_err(|_| range("ParseInt", text))
}

/// Digits to a number; what is too large saturates.
fn magnitude(text: &str, base: u32) -> Option<u128> {
    let (radix, digits) = if base == 0 { radix_of(text) } else { (base, text) };
    if digits.is_empty() || (base == 0 && !underscores_stand_between_digits(text)) {
        return None;
    }
    let mut value: u128 = 0;
    for c in digits.chars().filter(|c| base != 0 || *c != '_') {
        let digit = c.to_digit(radix)?;
        value = value.saturating_mul(u128::from(radix)).saturating_add(u128::from(digit));
    }
    Some(value)
}

fn radix_of(text: &str) -> (u32, &str) {
    let lower = text.as_bytes().get(1).map(u8::to_ascii_lowercase);
    match (text.as_bytes().first(), lower) {
        (Some(b'0'), Some(b'x')) => (16, &text[2..]),
        (Some(b'0'), Some(b'o')) => (8, &text[2..]),
        (Some(b'0'), Some(b'b')) => (2, &text[2..]),
        (Some(b'0'), Some(_)) => (8, &text[1..]),
        _ => (10, text),
    }
}

/// A base prefix counts as a digit.
fn underscores_stand_between_digits(text: &str) -> bool {
    let prefixed = matches!(text.get(..2), Some("0x" | "0X" | "0o" | "0O" | "0b" | "0B"));
    let mut last_was_digit = prefixed;
    for c in text.chars().skip(if prefixed { 2 } else { 0 }) {
        if c == '_' && !last_was_digit {
            return false;
        }
        last_was_digit = c != '_';
    }
    !text.ends_with('_')
}

/// `time.ParseDuration`: nanoseconds, maybe negative.
///
/// # Errors
/// Go's text, e.g. `time: missing unit in duration "5"`.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text.as_bytes()));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (ns, next) = duration_part(text, rest)?;
        total = total.checked_add(ns).filter(|t| *t <= 1 << 63).ok_or_else(invalid)?;
        rest = next;
    }
    let total = i128::try_from(total).map_err(|_| invalid())?;
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// One `number unit` pair from the front of `rest`.
fn duration_part<'a>(text: &str, rest: &'a str) -> Result<(u128, &'a str), String> {
    let invalid = || format!("time: invalid duration {}", quote(text.as_bytes()));
    let whole_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (whole, mut rest) = rest.split_at(whole_end);
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        (fraction, rest) = after.split_at(end);
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let scale: u128 = match unit {
        "" => return Err(format!("time: missing unit in duration {}", quote(text.as_bytes()))),
        "ns" => 1,
        "us" | "µs" | "μs" => NS_PER_US,
        "ms" => NS_PER_MS,
        "s" => NS_PER_S,
        "m" => 60 * NS_PER_S,
        "h" => 3600 * NS_PER_S,
        _ => {
            let (unit, text) = (quote(unit.as_bytes()), quote(text.as_bytes()));
            return Err(format!("time: unknown unit {unit} in duration {text}"));
        }
    };
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let ns = whole.checked_mul(scale).filter(|n| *n <= 1 << 63).ok_or_else(invalid)?;
    let fraction: f64 =
        if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().map_err(|_| invalid())? };
    Ok((ns + (fraction * scale as f64) as u128, rest))
}

/// A flag's nanoseconds as the type the rest of the program uses: below zero means none.
pub fn clamp(ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}

/// `time.Duration.String`: `1m0s`, `100ms`, `1.5s`.
pub fn format_duration(d: Duration) -> String {
    let ns = d.as_nanos();
    match ns {
        0 => "0s".into(),
        _ if ns < NS_PER_US => format!("{ns}ns"),
        _ if ns < NS_PER_MS => format!("{}µs", decimal(ns, NS_PER_US)),
        _ if ns < NS_PER_S => format!("{}ms", decimal(ns, NS_PER_MS)),
        _ => {
            let (hours, minutes) = (ns / (3600 * NS_PER_S), ns / (60 * NS_PER_S) % 60);
            let seconds = decimal(ns % (60 * NS_PER_S), NS_PER_S);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, m) => format!("{m}m{seconds}s"),
                (h, m) => format!("{h}h{m}m{seconds}s"),
            }
        }
    }
}

/// `ns / unit` with as many decimals as there are, no trailing zeros.
fn decimal(ns: u128, unit: u128) -> String {
    let width = unit.ilog10() as usize;
    let fraction = format!("{:0width$}", ns % unit);
    match fraction.trim_end_matches('0') {
        "" => (ns / unit).to_string(),
        fraction => format!("{}.{fraction}", ns / unit),
    }
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

/// An operating system's error in Go's words.
pub fn os_text(e: &std::io::Error) -> String {
    let text = e.to_string();
    let plain = match text.find(" (os error") {
        Some(end) => &text[..end],
        None => &text,
    };
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
    fn numbers_and_their_errors_are_gos() {
        assert_eq!(parse_int("0x10", 0), Ok(16));
        assert_eq!(parse_int("-3", 0), Ok(-3));
        assert_eq!(parse_int("7d", 16), Ok(0x7d));
        assert_eq!(parse_int("zz", 16).unwrap_err(), "strconv.ParseInt: parsing \"zz\": invalid syntax");
        assert_eq!(
            parse_uint("18446744073709551616", 0).unwrap_err(),
            "strconv.ParseUint: parsing \"18446744073709551616\": value out of range"
        );
        assert_eq!(parse_uint("0x10", 16).unwrap_err(), "strconv.ParseUint: parsing \"0x10\": invalid syntax");
        assert_eq!(parse_int("1_000", 0), Ok(1000));
        assert!(parse_int("1__0", 0).is_err() && parse_int("1_0", 10).is_err());
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(parse_duration("1h2m3.5s"), Ok(3_723_500_000_000));
        assert_eq!(parse_duration("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(format_duration(Duration::from_micros(3_952)), "3.952ms");
        assert_eq!(format_duration(Duration::from_nanos(712_500)), "712.5µs");
        assert_eq!(format_duration(Duration::from_millis(60_500)), "1m0.5s");
    }

    #[test]
    fn sizes_are_humanized() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
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

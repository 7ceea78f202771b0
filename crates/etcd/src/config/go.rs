//! Go's text forms of numbers, booleans and durations, with Go's error texts: operators' scripts hold such values, and
//! what Go's `strconv` and `time` accept is what etcd accepts.

use std::fmt::Write as _;
use std::time::Duration;

const NS_PER_US: u128 = 1_000;
const NS_PER_MS: u128 = 1_000_000;
const NS_PER_S: u128 = 1_000_000_000;

/// Why `strconv` refuses a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    Syntax,
    Range,
}

impl NumberError {
    /// The text of Go's `flag` package.
    pub fn flag_text(self) -> &'static str {
        match self {
            NumberError::Syntax => "parse error",
            NumberError::Range => "value out of range",
        }
    }

    /// The text of Go's `strconv` package.
    pub fn strconv_text(self) -> &'static str {
        match self {
            NumberError::Syntax => "invalid syntax",
            NumberError::Range => "value out of range",
        }
    }
}

/// Go's `strconv.Quote` for the texts that reach messages.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                // Writing to a String can't fail.
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// How `fmt` prints a list of texts with `%q`.
pub fn quote_all(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quote(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// An operating system's error in Go's words for the common cases.
pub fn io_text(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "is a directory".into(),
        std::io::ErrorKind::NotADirectory => "not a directory".into(),
        _ => e.to_string(),
    }
}

/// `strconv.ParseBool`.
///
/// # Errors
/// Anything but Go's twelve spellings.
pub fn parse_bool(text: &str) -> Result<bool, NumberError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(NumberError::Syntax),
    }
}

/// `strconv.ParseUint(text, 0, bits)`: `0x`, `0o`, `0b`, a leading zero for octal, underscores between digits.
///
/// # Errors
/// Not a number, or more than `bits` hold.
pub fn parse_uint(text: &str, bits: u32) -> Result<u64, NumberError> {
    let (radix, digits) = radix_of(text);
    if digits.is_empty() || !underscores_stand_between_digits(text) {
        return Err(NumberError::Syntax);
    }
    let mut value: u64 = 0;
    let mut overflow = false;
    for c in digits.chars().filter(|c| *c != '_') {
        let digit = c.to_digit(radix).ok_or(NumberError::Syntax)?;
        let next = value.checked_mul(u64::from(radix)).and_then(|v| v.checked_add(u64::from(digit)));
        overflow |= next.is_none();
        value = next.unwrap_or(u64::MAX);
    }
    let max = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
    if overflow || value > max { Err(NumberError::Range) } else { Ok(value) }
}

/// `strconv.ParseInt(text, 0, 64)`.
///
/// # Errors
/// Not a number, or out of range.
pub fn parse_int(text: &str) -> Result<i64, NumberError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = parse_uint(digits, 64)?;
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    i64::try_from(value).map_err(|_| NumberError::Range)
}

/// `strconv.Atoi`: decimal digits and a sign, nothing else.
///
/// # Errors
/// Not a number, or out of range.
pub fn parse_decimal(text: &str) -> Result<i64, NumberError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NumberError::Syntax);
    }
    text.parse().map_err(|_| NumberError::Range)
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
    let mut after_digit = prefixed;
    let mut open = false;
    for c in text.chars().skip(if prefixed { 2 } else { 0 }) {
        if c == '_' {
            if !after_digit {
                return false;
            }
            open = true;
            after_digit = false;
        } else {
            open = false;
            after_digit = true;
        }
    }
    !open
}

/// `time.ParseDuration`: nanoseconds, maybe negative.
///
/// # Errors
/// Go's text, e.g. `time: missing unit in duration "5"`.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
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
    let signed = if negative { -(total as i128) } else { total as i128 };
    i64::try_from(signed).map_err(|_| invalid())
}

/// One `number unit` pair from the front of `rest`.
fn duration_part<'a>(text: &str, rest: &'a str) -> Result<(u128, &'a str), String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
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
        "" => return Err(format!("time: missing unit in duration {}", quote(text))),
        "ns" => 1,
        "us" | "µs" | "μs" => NS_PER_US,
        "ms" => NS_PER_MS,
        "s" => NS_PER_S,
        "m" => 60 * NS_PER_S,
        "h" => 3600 * NS_PER_S,
        _ => return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(text))),
    };
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let mut ns = whole.checked_mul(scale).filter(|n| *n <= 1 << 63).ok_or_else(invalid)?;
    ns += fraction_ns(fraction, scale);
    Ok((ns, rest))
}

/// In floating point, as Go computes it: the last digit of an odd fraction must come out the same.
fn fraction_ns(digits: &str, unit: u128) -> u128 {
    const LIMIT: u64 = (1 << 63) - 1;
    let (mut value, mut scale) = (0u64, 1f64);
    for digit in digits.bytes() {
        if value > LIMIT / 10 {
            break;
        }
        value = value * 10 + u64::from(digit - b'0');
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u128
}

/// A parsed duration as the type the rest of the program uses: below zero means none.
pub fn clamp(ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}

/// [`format_duration`] for one that may be negative.
pub fn format_nanoseconds(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    format!("{sign}{}", format_duration(Duration::from_nanos(ns.unsigned_abs())))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_as_go_parses_them() {
        let cases: &[(&str, Result<i64, &str>)] = &[
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("5s", Ok(5_000_000_000)),
            ("1h2m3s", Ok(3_723_000_000_000)),
            ("1.5h", Ok(5_400_000_000_000)),
            (".5s", Ok(500_000_000)),
            ("1.s", Ok(1_000_000_000)),
            ("-1.5s", Ok(-1_500_000_000)),
            ("+100ms", Ok(100_000_000)),
            ("3us", Ok(3_000)),
            ("3µs", Ok(3_000)),
            ("3μs", Ok(3_000)),
            ("7ns", Ok(7)),
            ("0.3333333333333333333h", Ok(1_200_000_000_000)),
            ("9223372036854775807ns", Ok(i64::MAX)),
            ("-9223372036854775808ns", Ok(i64::MIN)),
            ("9223372036854775808ns", Err("time: invalid duration \"9223372036854775808ns\"")),
            ("9999999h", Err("time: invalid duration \"9999999h\"")),
            ("", Err("time: invalid duration \"\"")),
            ("-", Err("time: invalid duration \"-\"")),
            (".s", Err("time: invalid duration \".s\"")),
            ("abc", Err("time: invalid duration \"abc\"")),
            ("5", Err("time: missing unit in duration \"5\"")),
            ("1x", Err("time: unknown unit \"x\" in duration \"1x\"")),
            ("1 s", Err("time: unknown unit \" s\" in duration \"1 s\"")),
        ];
        for (text, want) in cases {
            assert_eq!(
                parse_duration(text).as_ref().map_err(String::as_str),
                want.as_ref().map_err(|e| *e),
                "{text:?}"
            );
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        let cases: &[(u64, &str)] = &[
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (1_771_103, "1.771103ms"),
            (100_000_000, "100ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (600_000_000_000, "10m0s"),
            (7_200_000_000_000, "2h0m0s"),
            (3_723_004_000_000, "1h2m3.004s"),
        ];
        for (ns, text) in cases {
            assert_eq!(format_duration(Duration::from_nanos(*ns)), *text);
        }
        assert_eq!((format_nanoseconds(-1_000_000_000), format_nanoseconds(0)), ("-1s".into(), "0s".into()));
    }

    #[test]
    fn numbers_parse_as_go_parses_them() {
        use NumberError::{Range, Syntax};
        let cases: &[(&str, Result<u64, NumberError>)] = &[
            ("0", Ok(0)),
            ("42", Ok(42)),
            ("0x1F", Ok(31)),
            ("0X1f", Ok(31)),
            ("0b101", Ok(5)),
            ("0o17", Ok(15)),
            ("017", Ok(15)),
            ("1_000", Ok(1000)),
            ("0x_10", Ok(16)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(Range)),
            ("08", Err(Syntax)),
            ("1__0", Err(Syntax)),
            ("_1", Err(Syntax)),
            ("1_", Err(Syntax)),
            ("-1", Err(Syntax)),
            ("+1", Err(Syntax)),
            ("", Err(Syntax)),
            ("0x", Err(Syntax)),
            ("0x10z", Err(Syntax)),
            (" 1", Err(Syntax)),
        ];
        for (text, want) in cases {
            assert_eq!(parse_uint(text, 64), *want, "{text:?}");
        }
        assert_eq!(parse_uint("4294967296", 32), Err(Range));
        assert_eq!(parse_int("-0x10"), Ok(-16));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_int("9223372036854775808"), Err(Range));
        assert_eq!(parse_int("--1"), Err(Syntax));
        for (text, want) in [
            ("010", Ok(10)),
            ("+5", Ok(5)),
            ("-5", Ok(-5)),
            ("0x10", Err(Syntax)),
            ("1_0", Err(Syntax)),
            ("", Err(Syntax)),
            ("-", Err(Syntax)),
            ("--5", Err(Syntax)),
            ("9223372036854775808", Err(Range)),
        ] {
            assert_eq!(parse_decimal(text), want, "{text:?}");
        }
    }

    #[test]
    fn booleans_are_gos_twelve_spellings() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(parse_bool(text), Ok(true));
        }
        for text in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(parse_bool(text), Ok(false));
        }
        for text in ["", "yes", "tRUE", "2"] {
            assert_eq!(parse_bool(text), Err(NumberError::Syntax));
        }
    }
}

//! `time.Duration`: reading and printing.

use crate::quote;
use std::time::Duration;

const NS_PER_US: u128 = 1_000;
const NS_PER_MS: u128 = 1_000_000;
const NS_PER_S: u128 = 1_000_000_000;

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
            ("250ms", Ok(250_000_000)),
            ("1m30s", Ok(90_000_000_000)),
            ("1.5s", Ok(1_500_000_000)),
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
            ("1d", Err("time: unknown unit \"d\" in duration \"1d\"")),
            ("ms", Err("time: invalid duration \"ms\"")),
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
            (7, "7ns"),
            (654_840, "654.84µs"),
            (1_104_580, "1.10458ms"),
            (276_000_000, "276ms"),
            (3_661_000_000_000, "1h1m1s"),
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
    fn durations_are_gos() {
        assert_eq!(parse_duration("1h2m3.5s"), Ok(3_723_500_000_000));
        assert_eq!(parse_duration("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(format_duration(Duration::from_micros(3_952)), "3.952ms");
        assert_eq!(format_duration(Duration::from_nanos(712_500)), "712.5µs");
        assert_eq!(format_duration(Duration::from_millis(60_500)), "1m0.5s");
    }
}

//! Numbers as Go's `fmt` prints them: the report's layout is etcd's to the letter.

use std::time::Duration;

/// `%4.4f`, or `%g` where `precise` is asked for.
pub fn float(value: f64, precise: bool) -> String {
    if precise { shortest(value) } else { format!("{value:.4}") }
}

/// Go's `%g`: the fewest digits that read back; an exponent below 1e-4 and from 1e6 on.
pub fn shortest(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Go's `time.Duration.String`.
pub fn duration(value: Duration) -> String {
    let nanos = value.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => clock(nanos),
    }
}

fn clock(nanos: u128) -> String {
    const SECOND: u128 = 1_000_000_000;
    let (hours, minutes) = (nanos / (3600 * SECOND), nanos / (60 * SECOND) % 60);
    let seconds = fraction(nanos % (60 * SECOND), SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / unit` without trailing zeros; `unit` is a power of ten.
fn fraction(value: u128, unit: u128) -> String {
    let rest = value % unit;
    if rest == 0 {
        return (value / unit).to_string();
    }
    let width = unit.ilog10() as usize;
    let decimals = format!("{rest:0width$}");
    format!("{}.{}", value / unit, decimals.trim_end_matches('0'))
}

/// Bytes in decimal units, as go-humanize prints them: `43 MB`, `1.5 kB`.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if value < 10 {
        return format!("{value} B");
    }
    let power = (value.ilog10() / 3) as usize;
    let scaled = value as f64 / 1000f64.powi(power as i32);
    let rounded = (scaled * 10.0 + 0.5).floor() / 10.0;
    if rounded < 10.0 { format!("{rounded:.1} {}", UNITS[power]) } else { format!("{rounded:.0} {}", UNITS[power]) }
}

/// Reads a Go duration (`1m30s`, `250ms`, `0`).
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += value * unit_seconds(&rest[..unit])?;
        rest = &rest[unit..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_go_prints_them() {
        assert_eq!(float(0.00123456, false), "0.0012");
        assert_eq!(float(2960.30081, false), "2960.3008");
        let table: [(f64, &str); 7] = [
            (0.001212, "0.001212"),
            (0.00001234, "1.234e-05"),
            (100000.0, "100000"),
            (1234567.0, "1.234567e+06"),
            (0.0, "0"),
            (2960.5, "2960.5"),
            (1e-10, "1e-10"),
        ];
        for (value, text) in table {
            assert_eq!(shortest(value), text);
        }
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        let table = [
            (0, "0s"),
            (7, "7ns"),
            (654_840, "654.84µs"),
            (1_104_580, "1.10458ms"),
            (276_000_000, "276ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_661_000_000_000, "1h1m1s"),
        ];
        for (nanos, text) in table {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let table =
            [("0", Some(0)), ("250ms", Some(250)), ("1m30s", Some(90_000)), ("1.5s", Some(1500)), (".5s", Some(500))];
        for (text, millis) in table {
            assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text}");
        }
        for bad in ["", "5", "1d", "ms", "-5s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn bytes_are_printed_as_humanize_prints_them() {
        let table = [(0, "0 B"), (9, "9 B"), (12, "12 B"), (999, "999 B"), (1500, "1.5 kB"), (43_212_345, "43 MB")];
        for (value, text) in table {
            assert_eq!(bytes(value), text);
        }
    }
}

//! Durations as Go spells them: `1h15m30.5s`, `300ms`, `0`.

use std::time::Duration;

/// Parses what Go's `time.ParseDuration` takes; a negative duration is no wait at all.
pub fn parse(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit = rest[number..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |n| number + n);
        nanos += amount(&rest[..number])? * unit_nanos(&rest[number..unit])?;
        rest = &rest[unit..];
    }
    // Go counts nanoseconds in 63 bits.
    let inside = nanos < i64::MAX as f64;
    inside.then(|| if negative { Duration::ZERO } else { Duration::from_nanos(nanos as u64) })
}

fn amount(text: &str) -> Option<f64> {
    if !text.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn unit_nanos(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("0", 0),
            ("-0", 0),
            ("2s", 2_000),
            ("+2s", 2_000),
            ("1.5s", 1_500),
            (".5s", 500),
            ("1h1m1s1ms", 3_661_001),
            ("1000us", 1),
            ("1000µs", 1),
            ("1000000ns", 1),
            ("-3s", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "-", "5", "s", ".s", "1.2.3s", "1x", "1s2", "1 s", "9999999999h"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

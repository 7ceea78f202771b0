//! Numbers as Go's `fmt` prints them: the report's layout is etcd's to the letter.

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
}

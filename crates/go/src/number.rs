//! `strconv`: numbers and booleans.

use crate::quote;

/// Why a text is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Syntax,
    Range,
}

/// The error of a function of `strconv`; it prints as Go's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberError {
    pub why: Why,
    function: &'static str,
    text: String,
}

impl NumberError {
    fn new(why: Why, function: &'static str, text: &str) -> NumberError {
        NumberError { why, function, text: text.to_owned() }
    }

    /// The text of Go's `flag` package.
    pub fn flag_text(&self) -> &'static str {
        match self.why {
            Why::Syntax => "parse error",
            Why::Range => "value out of range",
        }
    }
}

impl From<NumberError> for String {
    fn from(e: NumberError) -> String {
        e.to_string()
    }
}

impl std::fmt::Display for NumberError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = match self.why {
            Why::Syntax => "invalid syntax",
            Why::Range => "value out of range",
        };
        write!(f, "strconv.{}: parsing {}: {why}", self.function, quote(&self.text))
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
        _ => Err(NumberError::new(Why::Syntax, "ParseBool", text)),
    }
}

/// `strconv.ParseUint(text, base, bits)`; base 0 reads `0x`, `0o`, `0b`, a leading zero for octal, and underscores between
/// digits.
///
/// # Errors
/// Not a number, or more than `bits` hold.
pub fn parse_uint(text: &str, base: u32, bits: u32) -> Result<u64, NumberError> {
    magnitude(text, base, bits).map_err(|why| NumberError::new(why, "ParseUint", text))
}

/// `strconv.ParseInt(text, base, 64)`; `Atoi` is base 10.
///
/// # Errors
/// Not a number, or out of range.
pub fn parse_int(text: &str, base: u32) -> Result<i64, NumberError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let failed = |why| NumberError::new(why, "ParseInt", text);
    let magnitude = magnitude(digits, base, 64).map_err(failed)?;
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    i64::try_from(value).map_err(|_| failed(Why::Range))
}

fn magnitude(text: &str, base: u32, bits: u32) -> Result<u64, Why> {
    let (radix, digits) = if base == 0 { radix_of(text) } else { (base, text) };
    if digits.is_empty() || base == 0 && !underscores_stand_between_digits(text) {
        return Err(Why::Syntax);
    }
    let mut value: u64 = 0;
    let mut overflow = false;
    for c in digits.chars().filter(|c| base != 0 || *c != '_') {
        let digit = c.to_digit(radix).ok_or(Why::Syntax)?;
        let next = value.checked_mul(u64::from(radix)).and_then(|v| v.checked_add(u64::from(digit)));
        overflow |= next.is_none();
        value = next.unwrap_or(u64::MAX);
    }
    let max = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
    if overflow || value > max { Err(Why::Range) } else { Ok(value) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_their_errors_are_gos() {
        assert_eq!(parse_int("0x10", 0), Ok(16));
        assert_eq!(parse_int("-3", 0), Ok(-3));
        assert_eq!(parse_int("7d", 16), Ok(0x7d));
        assert_eq!(parse_int("zz", 16).unwrap_err().to_string(), "strconv.ParseInt: parsing \"zz\": invalid syntax");
        assert_eq!(
            parse_uint("18446744073709551616", 0, 64).unwrap_err().to_string(),
            "strconv.ParseUint: parsing \"18446744073709551616\": value out of range"
        );
        assert_eq!(
            parse_uint("0x10", 16, 64).unwrap_err().to_string(),
            "strconv.ParseUint: parsing \"0x10\": invalid syntax"
        );
        assert_eq!(parse_int("1_000", 0), Ok(1000));
        assert!(parse_int("1__0", 0).is_err() && parse_int("1_0", 10).is_err());
    }

    #[test]
    fn numbers_parse_as_go_parses_them() {
        use Why::{Range, Syntax};
        let why = |e: NumberError| e.why;
        let cases: &[(&str, Result<u64, Why>)] = &[
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
            assert_eq!(parse_uint(text, 0, 64).map_err(why), *want, "{text:?}");
        }
        assert_eq!(parse_uint("4294967296", 0, 32).map_err(why), Err(Range));
        assert_eq!(parse_int("-0x10", 0), Ok(-16));
        assert_eq!(parse_int("-9223372036854775808", 0), Ok(i64::MIN));
        assert_eq!(parse_int("9223372036854775808", 0).map_err(why), Err(Range));
        assert_eq!(parse_int("--1", 0).map_err(why), Err(Syntax));
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
            assert_eq!(parse_int(text, 10).map_err(why), want, "{text:?}");
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
            assert_eq!(parse_bool(text).unwrap_err().why, Why::Syntax);
        }
    }
}

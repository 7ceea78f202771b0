//! Go's text forms (`strconv`, `time`, `encoding/json`, `encoding/csv`): what Go accepts our programs accept, and texts and
//! errors are Go's, because operators' scripts hold such values and look for them.

mod duration;
mod number;
mod text;

pub use duration::{clamp, format_duration, format_nanoseconds, parse_duration};
pub use number::{NumberError, Why, parse_bool, parse_int, parse_uint};
pub use text::{bytes_text, is_shown, json_string, log_string, os_text, quote, quote_all, split_csv, unquote};

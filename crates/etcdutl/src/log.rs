//! Progress on standard error, in zap's console style: time, level, caller, message, fields; tabs between.

/// One line. `fields`: name, and its value as JSON.
pub fn info(caller: &str, message: &str, fields: &[(&str, String)]) {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    let fields = if fields.is_empty() { String::new() } else { format!("\t{{{}}}", fields.join(", ")) };
    eprintln!("{now}\tinfo\t{caller}\t{message}{fields}");
}

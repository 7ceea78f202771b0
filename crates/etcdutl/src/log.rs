//! Progress on standard error, in zap's console style: time, level, caller, message, fields; tabs between.

/// One line. `fields`: name, and its value as JSON.
pub fn info(caller: &str, message: &str, fields: &[(&str, String)]) {
    line("info", caller, message, fields);
}

/// A warning.
pub fn warn(caller: &str, message: &str, fields: &[(&str, String)]) {
    line("warn", caller, message, fields);
}

/// What makes the command fail. Go's tool adds a trace of its stack.
pub fn error(caller: &str, message: &str, fields: &[(&str, String)]) {
    line("error", caller, message, fields);
}

fn line(level: &str, caller: &str, message: &str, fields: &[(&str, String)]) {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    let fields = if fields.is_empty() { String::new() } else { format!("\t{{{}}}", fields.join(", ")) };
    eprintln!("{now}\t{level}\t{caller}\t{message}{fields}");
}

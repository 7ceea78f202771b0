//! Log lines on standard error, as zap writes them: one JSON object a line. Scripts and people's eyes know them.

use client::Observer;
use go::log_string;
use std::sync::Arc;

/// One line: level, logger (may be empty), caller, message, and more fields whose values are JSON already.
pub fn line(level: &str, logger: &str, caller: &str, message: &str, fields: &[(&str, String)]) {
    let mut text = format!("{{\"level\":\"{level}\",\"ts\":\"{}\"", timestamp());
    if !logger.is_empty() {
        text += &format!(",\"logger\":\"{logger}\"");
    }
    text += &format!(",\"caller\":\"{caller}\",\"msg\":{}", log_string(message));
    for (name, value) in fields {
        text += &format!(",{}:{value}", log_string(name));
    }
    eprintln!("{text}}}");
}

/// An information.
pub fn info(logger: &str, caller: &str, message: &str, fields: &[(&str, String)]) {
    line("info", logger, caller, message, fields);
}

/// A warning.
pub fn warn(logger: &str, caller: &str, message: &str, fields: &[(&str, String)]) {
    line("warn", logger, caller, message, fields);
}

/// `2026-11-21T03:00:53.888418Z`.
fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Writes a line for each attempt that failed.
pub fn attempts(logger: &'static str) -> Observer {
    Arc::new(move |failed| attempt(logger, failed))
}

fn attempt(logger: &str, attempt: &client::Attempt) {
    let peer = match &attempt.peer {
        Some((peer, local)) => format!("Peer{{Addr: '{peer}', LocalAddr: '{local}', AuthInfo: 'insecure'}}"),
        None => "Peer{Addr: <nil>, LocalAddr: <nil>, AuthInfo: <nil>}".to_owned(),
    };
    warn(
        logger,
        "v3@v3.7.1/retry_interceptor.go:68",
        "retrying of unary invoker failed",
        &[
            ("target", log_string(&format!("etcd-endpoints://{}", attempt.target))),
            ("peer", log_string(&peer)),
            ("method", log_string(attempt.method)),
            ("attempt", attempt.attempt.to_string()),
            ("error", log_string(&attempt.error)),
        ],
    );
}

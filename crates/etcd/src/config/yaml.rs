//! The config file: YAML, read as Go's `sigs.k8s.io/yaml` reads it (through JSON: keys in any case, unknown keys
//! ignored, the last of repeated keys wins, numbers and texts are not taken for each other).

use super::cli::Failure;

use super::table::{Config, FLAGS, Flag, Slot};
use super::yaml_lines;
use serde_json::{Map, Value};
use serde_saphyr::DuplicateKeyPolicy;

/// Applies the file's settings.
///
/// # Errors
/// The first thing wrong with it, in etcd's words.
pub fn read(text: &str, config: &mut Config) -> Result<(), Failure> {
    read_given(text, config).map(drop)
}

/// As [`read`]; answers the keys that the file gave, as the table has them.
///
/// # Errors
/// As [`read`].
pub fn read_given(text: &str, config: &mut Config) -> Result<Vec<&'static str>, Failure> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let text = yaml_lines::first_document(text);
    if let Some((line, why)) = yaml_lines::stray_tab(text) {
        let place = if line == 0 { String::new() } else { format!(" line {}:", line + 1) };
        return Err(Failure::Verify(format!("error converting YAML to JSON: yaml:{place} {why}")));
    }
    let document: Value = if text.trim().is_empty() {
        Value::Null
    } else {
        serde_saphyr::from_str_with_options(text, options).map_err(|e| {
            let line = e.location().map_or(0, |l| l.line());
            Failure::Verify(format!("error converting YAML to JSON: yaml: line {line}: {e}"))
        })?
    };
    match document {
        Value::Null => Ok(Vec::new()),
        Value::Object(settings) => {
            let mut given = Vec::new();
            object(&settings, "", config, &mut given).map(|()| given)
        }
        other => Err(decoding(&format!("cannot unmarshal {} into Go value of type embed.configYAML", kind(&other)))),
    }
}

fn decoding(text: &str) -> Failure {
    Failure::Verify(format!("error unmarshaling JSON: while decoding JSON: json: {text}"))
}

fn object(
    settings: &Map<String, Value>,
    prefix: &str,
    config: &mut Config,
    given: &mut Vec<&'static str>,
) -> Result<(), Failure> {
    for (key, value) in settings {
        let path = format!("{prefix}{}", key.to_lowercase());
        if value.is_null() {
            continue;
        }
        if let Some(flag) = FLAGS.iter().find(|f| f.key == path) {
            setting(flag, value, config)?;
            given.push(flag.key);
            continue;
        }
        let below = format!("{path}.");
        if FLAGS.iter().any(|f| f.key.starts_with(&below)) {
            match value {
                Value::Object(settings) => object(settings, &below, config, given)?,
                other => return Err(mismatch(&path, &kind(other), group_type(&path))),
            }
        }
    }
    Ok(())
}

fn setting(flag: &Flag, value: &Value, config: &mut Config) -> Result<(), Failure> {
    let key = flag.key;
    match flag.slot {
        Slot::Bool(field) => *field(config) = value.as_bool().ok_or_else(|| wrong(flag, value))?,
        Slot::Uint(field) => *field(config) = unsigned(value).ok_or_else(|| wrong(flag, value))?,
        Slot::Uint32(field) => {
            let number = unsigned(value).and_then(|n| u32::try_from(n).ok());
            *field(config) = number.ok_or_else(|| wrong(flag, value))?;
        }
        Slot::Int(field) => *field(config) = signed(value).ok_or_else(|| wrong(flag, value))?,
        Slot::Nanoseconds(field) => *field(config) = signed(value).ok_or_else(|| wrong(flag, value))?,
        Slot::Duration(field) => *field(config) = go::clamp(signed(value).ok_or_else(|| wrong(flag, value))?),
        // A bad state is told by validation; v2's phases are not looked at.
        Slot::Text(field) | Slot::State(field) | Slot::Fallback(field) | Slot::V2(field) => {
            *field(config) = text(flag, value)?.to_owned();
        }
        Slot::List(field) => *field(config) = list(flag, value)?,
        Slot::Set(field) if go_type(flag) == "[]string" => {
            let mut items = list(flag, value)?;
            items.sort();
            items.dedup();
            *field(config) = items;
        }
        Slot::Gates(_) => flag.set(config, text(flag, value)?).map_err(Failure::Verify)?,
        Slot::Urls(_) | Slot::Origins(_) | Slot::Set(_) => {
            let text = text(flag, value)?;
            if text.is_empty() {
                return Ok(());
            }
            // etcd names the wrong key here; scripts match on the text.
            let shown = if key == "advertise-client-urls" { "advertise-peer-urls" } else { key };
            flag.set(config, text)
                .map_err(|why| Failure::Print(format!("unexpected error setting up {shown}: {why}")))?;
        }
    }
    Ok(())
}

fn text<'a>(flag: &Flag, value: &'a Value) -> Result<&'a str, Failure> {
    value.as_str().ok_or_else(|| wrong(flag, value))
}

fn list(flag: &Flag, value: &Value) -> Result<Vec<String>, Failure> {
    let items = value.as_array().ok_or_else(|| wrong(flag, value))?;
    items
        .iter()
        .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| mismatch(flag.key, &kind(item), "string")))
        .collect()
}

fn unsigned(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| whole(value).and_then(|n| u64::try_from(n).ok()))
}

fn signed(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| whole(value).and_then(|n| i64::try_from(n).ok()))
}

/// `1e3` is a whole number too.
fn whole(value: &Value) -> Option<i128> {
    let number = value.as_f64().filter(|_| value.is_f64())?;
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i128)
}

fn wrong(flag: &Flag, value: &Value) -> Failure {
    let go = go_type(flag);
    let numeric =
        matches!(flag.slot, Slot::Uint(_) | Slot::Uint32(_) | Slot::Int(_) | Slot::Duration(_) | Slot::Nanoseconds(_));
    match value {
        Value::Number(n) if numeric => mismatch(flag.key, &format!("number {n}"), go),
        other => mismatch(flag.key, &kind(other), go),
    }
}

fn mismatch(path: &str, found: &str, wanted: &str) -> Failure {
    decoding(&format!("cannot unmarshal {found} into Go struct field {}{path} of type {wanted}", holder(path)))
}

/// What Go's decoder calls a value.
pub fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
    .into()
}

/// Go's struct that holds a key, as its decoder names it.
fn holder(path: &str) -> &'static str {
    let top = path.split('.').next().unwrap_or_default();
    if let "client-transport-security" | "peer-transport-security" = top {
        return if path == top { "configYAML.configJSON." } else { "securityConfig.configJSON." };
    }
    if let Some(flag) = FLAGS.iter().find(|f| f.key == path)
        && (matches!(flag.slot, Slot::Urls(_) | Slot::Origins(_) | Slot::Gates(_)) || path == "host-whitelist")
    {
        return "configYAML.configJSON.";
    }
    match path.rsplit_once('.').map(|(parent, _)| parent) {
        None => "configYAML.Config.",
        Some("socket-options") => "SocketOpts.Config.",
        Some("discovery-config.client") => "ConfigSpec.Config.",
        Some("discovery-config.client.secure") => "SecureConfig.Config.",
        Some("discovery-config.client.auth") => "AuthConfig.Config.",
        Some(_) => "DiscoveryConfig.Config.",
    }
}

fn group_type(path: &str) -> &'static str {
    match path {
        "socket-options" => "transport.SocketOpts",
        "discovery-config" => "v3discovery.DiscoveryConfig",
        "discovery-config.client" => "clientv3.ConfigSpec",
        "discovery-config.client.secure" => "clientv3.SecureConfig",
        "discovery-config.client.auth" => "clientv3.AuthConfig",
        _ => "embed.securityConfig",
    }
}

fn go_type(flag: &Flag) -> &'static str {
    match flag.slot {
        Slot::Bool(_) => "bool",
        Slot::Uint(_) if flag.key.starts_with("snapshot-") => "uint64",
        Slot::Uint(_) => "uint",
        Slot::Uint32(_) => "uint32",
        Slot::Int(_) if flag.key == "quota-backend-bytes" => "int64",
        Slot::Int(_) => "int",
        Slot::Duration(_) | Slot::Nanoseconds(_) => "time.Duration",
        Slot::List(_) => "[]string",
        Slot::Set(_) if flag.key == "log-outputs" => "[]string",
        Slot::V2(_) => "config.V2DeprecationEnum",
        _ => "string",
    }
}

//! Checks of the settings of TLS that Go etcd makes even where none is used.

use super::table::Config;
use go::quote;

/// What `--cipher-suites` may hold: Go 1.26's suites, then etcd's two old names.
const SUITES: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
];

/// `--tls-min-version` and `--tls-max-version`, and suites that no allowed version would ask for.
///
/// # Errors
/// etcd's text.
pub fn versions(config: &Config) -> Result<(), String> {
    let (least, most) = (&config.tls_min_version, &config.tls_max_version);
    let (min, max) = (version(least)?, version(most)?);
    if max != 0 && min > max {
        return Err(format!("min version ({least}) is greater than max version ({most})"));
    }
    if min == TLS13 && !config.cipher_suites.is_empty() {
        return Err("cipher suites cannot be configured when only TLS1.3 is enabled".into());
    }
    Ok(())
}

/// `--cipher-suites`.
///
/// # Errors
/// etcd's text for the first unknown one.
pub fn cipher_suites(config: &Config) -> Result<(), String> {
    match config.cipher_suites.iter().find(|suite| !SUITES.contains(&suite.as_str())) {
        Some(suite) => Err(format!("unexpected TLS cipher suite {}", quote(suite))),
        None => Ok(()),
    }
}

/// What a flag that was checked says.
pub fn tls_version(text: &str) -> Option<tls::Version> {
    match text {
        "TLS1.2" => Some(tls::Version::Tls12),
        "TLS1.3" => Some(tls::Version::Tls13),
        _ => None,
    }
}

const TLS12: u8 = 12;
const TLS13: u8 = 13;

/// 0: not given.
fn version(text: &str) -> Result<u8, String> {
    match text {
        "" => Ok(0),
        "TLS1.2" => Ok(TLS12),
        "TLS1.3" => Ok(TLS13),
        other => Err(format!("unexpected TLS version {} (must be one of: TLS1.2, TLS1.3)", quote(other))),
    }
}

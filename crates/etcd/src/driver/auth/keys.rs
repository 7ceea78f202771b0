//! Keys in PEM files, as golang-jwt reads them: RSA (PKCS#1, PKCS#8), elliptic curves (SEC 1, PKCS#8), Ed25519 (PKCS#8);
//! public ones as SubjectPublicKeyInfo, RSA's also bare.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The first block of a PEM file: its label and its bytes.
///
/// # Errors
/// There is none; golang-jwt's text.
pub fn pem(text: &[u8]) -> Result<(String, Vec<u8>), String> {
    let none = || "invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key".to_owned();
    let text = std::str::from_utf8(text).map_err(|_| none())?;
    let (_, rest) = text.split_once("-----BEGIN ").ok_or_else(none)?;
    let (label, rest) = rest.split_once("-----").ok_or_else(none)?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----")).ok_or_else(none)?;
    let body: String = body.split_whitespace().collect();
    Ok((label.to_owned(), STANDARD.decode(body).map_err(|_| none())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_block_counts_whatever_stands_around_it() {
        let text =
            b"words\n-----BEGIN A KEY-----\nYW\r\nJj\n-----END A KEY-----\n-----BEGIN B-----\nYQ==\n-----END B-----\n";
        assert_eq!(pem(text), Ok(("A KEY".into(), b"abc".to_vec())));
        for bad in ["", "abc", "-----BEGIN A-----\nYQ==\n", "-----BEGIN A-----\n!\n-----END A-----"] {
            assert!(pem(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}

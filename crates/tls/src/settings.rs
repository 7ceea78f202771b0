//! Which files and rules there are, as flags say it (etcd `transport.TLSInfo`).

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion};

/// A version of the protocol that etcd's flags can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Tls12,
    Tls13,
}

/// Files (empty: none) and rules of one kind of listener and of the connections that go with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub cert: String,
    pub key: String,
    /// What is shown to others where it is not `cert`.
    pub client_cert: String,
    pub client_key: String,
    /// Signs those who connect, and those that are connected to. Servers with it demand certificates.
    pub trusted_ca: String,
    /// Revoked certificates.
    pub crl: String,
    /// Certificates are demanded.
    pub client_cert_auth: bool,
    /// Of the other side's certificate, where not empty: its common name has to be among these,
    pub allowed_cns: Vec<String>,
    /// or it has to be valid for one of these.
    pub allowed_hostnames: Vec<String>,
    pub min: Option<Version>,
    pub max: Option<Version>,
    /// By their IANA names; TLS 1.2 only. Empty: all that are safe.
    pub suites: Vec<String>,
    /// Servers' certificates have to be valid for this instead of the host that was dialled.
    pub server_name: Option<String>,
    /// Any server will do.
    pub skip_verify: bool,
}

impl Settings {
    /// Whether there is nothing to serve with.
    pub fn is_empty(&self) -> bool {
        self.cert.is_empty() && self.key.is_empty()
    }

    /// Whether who connects has to show a certificate.
    pub fn demands_certificates(&self) -> bool {
        self.client_cert_auth || !self.trusted_ca.is_empty()
    }

    /// What contradicts itself.
    ///
    /// # Errors
    /// etcd's text.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.cert.is_empty() != self.key.is_empty() {
            let (key, cert) = (&self.key, &self.cert);
            return Err(format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"));
        }
        if self.client_cert.is_empty() != self.client_key.is_empty() {
            let (key, cert) = (&self.client_key, &self.client_cert);
            return Err(format!(
                "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {cert}]"
            ));
        }
        if !self.allowed_cns.is_empty() && !self.allowed_hostnames.is_empty() {
            return Err(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns={}, hostnames={})",
                go::quote_all(&self.allowed_cns),
                go::quote_all(&self.allowed_hostnames)
            ));
        }
        Ok(())
    }

    /// The cryptography that these settings leave.
    ///
    /// # Errors
    /// None of the cipher suites can be had.
    pub(crate) fn provider(&self) -> Result<CryptoProvider, String> {
        let mut provider = aws_lc_rs::default_provider();
        if self.suites.is_empty() {
            return Ok(provider);
        }
        // Of TLS 1.3 none can be left out, as in Go.
        let wanted = |suite: &SupportedCipherSuite| {
            suite.tls13().is_some() || self.suites.iter().any(|name| is_named(suite, name))
        };
        for name in &self.suites {
            if !provider.cipher_suites.iter().any(|suite| is_named(suite, name)) {
                tracing::warn!(
                    suite = name,
                    "a cipher suite of --cipher-suites is not offered: this server has those with forward secrecy and \
                     authenticated encryption only"
                );
            }
        }
        provider.cipher_suites.retain(wanted);
        let named = |suite: &SupportedCipherSuite| self.suites.iter().any(|name| is_named(suite, name));
        match provider.cipher_suites.iter().any(named) {
            true => Ok(provider),
            false => Err(format!(
                "none of the cipher suites {} is one that this server has: name some of {}",
                self.suites.join(","),
                names().join(",")
            )),
        }
    }

    /// The versions that these settings leave, newest first.
    pub(crate) fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let in_range = |version: &&&SupportedProtocolVersion| {
            let version = match version.version {
                ProtocolVersion::TLSv1_3 => Version::Tls13,
                _ => Version::Tls12,
            };
            self.min.is_none_or(|min| version >= min) && self.max.is_none_or(|max| version <= max)
        };
        [&rustls::version::TLS13, &rustls::version::TLS12].iter().filter(in_range).copied().collect()
    }
}

/// Go's names: IANA's, and two without their hash.
fn is_named(suite: &SupportedCipherSuite, name: &str) -> bool {
    let own = iana(suite);
    own == name || own.strip_suffix("_SHA256") == Some(name)
}

/// rustls has `TLS13_` where IANA has `TLS_`.
fn iana(suite: &SupportedCipherSuite) -> String {
    suite.suite().as_str().unwrap_or_default().replacen("TLS13_", "TLS_", 1)
}

fn names() -> Vec<String> {
    let provider = aws_lc_rs::default_provider();
    provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).map(iana).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(suites: &[&str]) -> Result<Vec<String>, String> {
        let suites = suites.iter().map(|s| (*s).to_owned()).collect();
        let provider = Settings { suites, ..Settings::default() }.provider()?;
        Ok(provider.cipher_suites.iter().filter(|s| s.tls13().is_none()).map(iana).collect())
    }

    #[test]
    fn suites_are_known_by_gos_names() {
        let (gcm, chacha) = ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305");
        assert_eq!(named(&[gcm]).unwrap(), [gcm]);
        assert_eq!(named(&[chacha]).unwrap(), [format!("{chacha}_SHA256")]);
        assert_eq!(named(&["TLS_RSA_WITH_AES_128_CBC_SHA", gcm]).unwrap(), [gcm]);
        assert_eq!(named(&[]).unwrap().len(), 6);
        assert!(named(&["TLS_AES_128_GCM_SHA256"]).unwrap().is_empty());
        let refusal = named(&["TLS_RSA_WITH_AES_128_CBC_SHA"]).unwrap_err();
        assert!(refusal.ends_with(&names().join(",")), "{refusal}");
    }

    #[test]
    fn what_contradicts_itself_is_refused_in_etcds_words() {
        let text = |settings: Settings| settings.check().unwrap_err();
        let cert = || "c".to_owned();
        assert_eq!(
            text(Settings { cert: cert(), ..Settings::default() }),
            "KeyFile and CertFile must both be present[key: , cert: c]"
        );
        assert_eq!(
            text(Settings { client_cert: cert(), ..Settings::default() }),
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: c]"
        );
        let both = Settings { allowed_cns: vec![cert()], allowed_hostnames: vec![cert()], ..Settings::default() };
        assert_eq!(
            text(both),
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"c\"], hostnames=[\"c\"])"
        );
    }
}

//! What a certificate says, and what a revocation list says of it, beyond what webpki tells.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::SystemTime;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Whom a certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The last one, as in Go; empty where there is none.
    pub common_name: String,
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
}

impl Names {
    /// Go's text for a host that these are not.
    pub fn mismatch(&self, host: &str) -> String {
        let join = |all: Vec<String>| all.join(", ");
        let is_address = host.parse::<IpAddr>().is_ok();
        let valid = match is_address {
            true => join(self.ips.iter().map(IpAddr::to_string).collect()),
            false => join(self.dns.clone()),
        };
        match (valid.is_empty(), is_address) {
            (true, true) => {
                format!("x509: cannot validate certificate for {host} because it doesn't contain any IP SANs")
            }
            (true, false) if self.ips.is_empty() && self.common_name == host => {
                "x509: certificate relies on legacy Common Name field, use SANs instead".to_owned()
            }
            (true, false) => format!("x509: certificate is not valid for any names, but wanted to match {host}"),
            (false, _) => format!("x509: certificate is valid for {valid}, not {host}"),
        }
    }
}

/// What a certificate says to people: whose it is, who signed it, and from when to when it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub names: Names,
    /// The issuer's common name; empty where there is none.
    pub issuer: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// A certificate's names, number and end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub names: Names,
    pub issuer: String,
    pub serial: Vec<u8>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// `SubjectPublicKeyInfo`, DER.
    pub public_key: Vec<u8>,
}

/// Reads a certificate.
///
/// # Errors
/// It is none.
pub(crate) fn look(der: &CertificateDer<'_>) -> Result<Seen, String> {
    let certificate = Certificate::from_der(der).map_err(|e| format!("x509: malformed certificate: {e}"))?;
    let tbs = certificate.tbs_certificate();
    let mut names = Names { common_name: common_name(tbs.subject()), ..Names::default() };
    for general in alternatives(&certificate)? {
        match general {
            GeneralName::DnsName(name) => names.dns.push(name.as_str().to_owned()),
            GeneralName::IpAddress(bytes) => names.ips.extend(ip(bytes.as_bytes())),
            _ => {}
        }
    }
    let serial = significant(tbs.serial_number().as_bytes()).to_vec();
    let public_key = tbs.subject_public_key_info().to_der().map_err(|e| format!("x509: malformed public key: {e}"))?;
    let (issuer, validity) = (common_name(tbs.issuer()), tbs.validity());
    let [not_before, not_after] = [validity.not_before, validity.not_after].map(|time| time.to_system_time());
    Ok(Seen { names, issuer, serial, not_before, not_after, public_key })
}

impl Seen {
    pub fn shown(&self) -> Shown {
        let Seen { names, issuer, not_before, not_after, .. } = self.clone();
        Shown { names, issuer, not_before, not_after }
    }
}

fn common_name(name: &Name) -> String {
    let all = name.iter().filter(|a| a.oid == COMMON_NAME);
    // UTF-8 and its subsets; other encodings of names are as rare as they are old.
    let texts = all.filter_map(|attribute| std::str::from_utf8(attribute.value.value()).ok());
    texts.last().unwrap_or_default().to_owned()
}

fn alternatives(certificate: &Certificate) -> Result<Vec<GeneralName>, String> {
    match certificate.tbs_certificate().get_extension::<SubjectAltName>() {
        Ok(found) => Ok(found.map(|(_, names)| names.0).unwrap_or_default()),
        Err(e) => Err(format!("x509: malformed subject alternative names: {e}")),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// A number's bytes without leading zeros.
fn significant(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

/// The numbers of revoked certificates. As Go's etcd, nobody asks who issued the list, or when it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revoked(BTreeSet<Vec<u8>>);

impl Revoked {
    /// Reads a list: DER, or PEM (`X509 CRL`; several add up), which Go's etcd no longer takes.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(bytes: &[u8]) -> Result<Revoked, String> {
        let mut revoked = Revoked::default();
        let mut lists = 0;
        for list in CertificateRevocationListDer::pem_slice_iter(bytes) {
            revoked.add(&list.map_err(|e| format!("malformed PEM: {e}"))?)?;
            lists += 1;
        }
        if lists == 0 {
            revoked.add(bytes)?;
        }
        Ok(revoked)
    }

    fn add(&mut self, der: &[u8]) -> Result<(), String> {
        let list: CertificateList = CertificateList::from_der(der).map_err(|e| format!("x509: malformed crl: {e}"))?;
        let entries = list.tbs_cert_list.revoked_certificates.unwrap_or_default();
        self.0.extend(entries.iter().map(|entry| significant(entry.serial_number.as_bytes()).to_vec()));
        Ok(())
    }

    /// # Errors
    /// One of these certificates is revoked; the text is etcd's.
    pub fn check<'a>(&self, certificates: impl Iterator<Item = &'a CertificateDer<'a>>) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        for certificate in certificates {
            let serial = look(certificate)?.serial;
            if self.0.contains(&serial) {
                let hex: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
                return Err(format!("transport: certificate serial {hex} revoked"));
            }
        }
        Ok(())
    }
}

/// What reads bytes from outside, opened to the fuzzer.
pub mod decoders {
    use super::{CertificateDer, Revoked, look};

    /// How many names a certificate has; `None` where it is none.
    pub fn count_names(der: &[u8]) -> Option<usize> {
        let seen = look(&CertificateDer::from(der)).ok()?;
        Some(seen.names.dns.len() + seen.names.ips.len())
    }

    /// How many certificates a list revokes; `None` where it is none.
    pub fn count_revoked(bytes: &[u8]) -> Option<usize> {
        Revoked::parse(bytes).ok().map(|revoked| revoked.0.len())
    }
}

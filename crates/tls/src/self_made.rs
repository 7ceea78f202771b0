//! `--auto-tls`: a certificate that nobody signed, made at the first start and kept (etcd `transport.SelfCert`).

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P521_SHA512};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// A certificate's end has four digits for its year.
const YEARS_MAX: u64 = 5000;

/// The files of a certificate of one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfMade {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The certificate in a folder, `cert.pem` and `key.pem`; made if it is not there, for these hosts (names or addresses,
/// without ports) and so many years.
///
/// # Errors
/// The files can't be made.
pub fn self_made(folder: &Path, hosts: &[String], years: u64) -> Result<SelfMade, String> {
    if years == 0 {
        return Err("selfSignedCertValidity is invalid,it should be greater than 0".into());
    }
    if years > YEARS_MAX {
        return Err(format!("--self-signed-cert-validity={years} is more than {YEARS_MAX} years"));
    }
    let failed = |e: std::io::Error| format!("cannot make a certificate in {}: {}", folder.display(), go::os_text(&e));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let folder = folder.canonicalize().map_err(failed)?;
    let made = SelfMade { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    if made.cert.exists() && made.key.exists() {
        return Ok(made);
    }
    let until = SystemTime::now() + YEAR * u32::try_from(years).unwrap_or(u32::MAX);
    tracing::warn!(
        "certificate-validity-bound-not-after" = crate::words::time(until),
        "automatically generate certificates"
    );
    let (cert, key) = sign(hosts, until).map_err(|e| format!("cannot make a certificate: {e}"))?;
    // The key first: a crash in between leaves no certificate without one.
    write(&made.key, 0o600, &key).map_err(failed)?;
    write(&made.cert, 0o644, &cert).map_err(failed)?;
    tracing::info!(path = %made.cert.display(), "created cert file");
    tracing::info!(path = %made.key.display(), "created key file");
    Ok(made)
}

fn sign(hosts: &[String], until: SystemTime) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512)?;
    let hosts: Vec<String> = hosts.iter().filter(|host| !host.is_empty()).cloned().collect();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.not_before = SystemTime::now().into();
    params.not_after = until.into();
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn write(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

//! The contents of the files: read and judged together.

use crate::settings::Settings;
use crate::x509::{Revoked, Shown, look};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::SystemTime;

/// Bytes of a file of certificates or of a key: far more than any chain or bundle of the world's authorities has.
const FILE_MAX: u64 = 8 << 20;
/// … and of a list of revoked certificates: about a million of them.
const LIST_MAX: u64 = 64 << 20;

/// A set of files that go together.
#[derive(Debug)]
pub(crate) struct Material {
    /// What a server shows.
    pub serving: Option<Arc<CertifiedKey>>,
    /// What is shown to servers.
    pub showing: Option<Arc<CertifiedKey>>,
    pub anchors: Option<Anchors>,
    pub revoked: Option<Revoked>,
    /// Which file's certificate ends when; of a file, the one that ends first.
    pub ends: Vec<(String, SystemTime)>,
}

/// Whose signatures are believed.
#[derive(Clone, Debug)]
pub(crate) struct Anchors {
    pub certificates: Arc<[CertificateDer<'static>]>,
    pub of_clients: Arc<dyn ClientCertVerifier>,
    pub of_servers: Arc<WebPkiServerVerifier>,
}

impl Material {
    /// # Errors
    /// A file can't be read, or does not go with the others; texts as Go's, with the file's name.
    pub fn read(settings: &Settings, provider: &Arc<CryptoProvider>) -> Result<Material, String> {
        let mut ends = Vec::new();
        let mut pair = |cert: &String, key: &String| -> Result<Option<Arc<CertifiedKey>>, String> {
            if cert.is_empty() {
                return Ok(None);
            }
            let pair = certified(cert, key, provider)?;
            ends.extend(first_end(cert, &pair.cert));
            Ok(Some(Arc::new(pair)))
        };
        let serving = pair(&settings.cert, &settings.key)?;
        let showing = pair(&settings.client_cert, &settings.client_key)?.or_else(|| serving.clone());
        let anchors =
            (!settings.trusted_ca.is_empty()).then(|| Anchors::read(&settings.trusted_ca, provider)).transpose()?;
        if let Some(anchors) = &anchors {
            ends.extend(first_end(&settings.trusted_ca, &anchors.certificates));
        }
        let crl = &settings.crl;
        let list = || Revoked::parse(&contents(crl, LIST_MAX)?).map_err(|e| format!("{crl}: {e}"));
        let revoked = (!crl.is_empty()).then(list).transpose()?;
        Ok(Material { serving, showing, anchors, revoked, ends })
    }
}

impl Anchors {
    fn read(file: &str, provider: &Arc<CryptoProvider>) -> Result<Anchors, String> {
        let certificates = chain(file)?;
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone()).map_err(|e| format!("{file}: not a certificate to trust: {e}"))?;
        }
        Anchors::of(store, certificates, provider)
    }

    /// Those of the operating system: what counts where no file is named.
    ///
    /// # Errors
    /// It has none.
    pub fn system(provider: &Arc<CryptoProvider>) -> Result<Anchors, String> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        // Some of them nobody can read; the others count.
        store.add_parsable_certificates(found.certs.iter().cloned());
        match store.is_empty() {
            true => Err("x509: no system root certificates available: name a file of authorities to trust".into()),
            false => Anchors::of(store, found.certs, provider),
        }
    }

    fn of(
        store: RootCertStore,
        certificates: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Anchors, String> {
        let store = Arc::new(store);
        let of_clients = WebPkiClientVerifier::builder_with_provider(store.clone(), provider.clone()).build();
        let of_servers = WebPkiServerVerifier::builder_with_provider(store, provider.clone()).build();
        Ok(Anchors {
            certificates: certificates.into(),
            of_clients: of_clients.map_err(|e| e.to_string())?,
            of_servers: of_servers.map_err(|e| e.to_string())?,
        })
    }
}

fn certified(cert: &str, key: &str, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain = chain(cert)?;
    let secret = PrivateKeyDer::from_pem_slice(&contents(key, FILE_MAX)?)
        .map_err(|_| format!("tls: failed to find any PEM data in key input ({key})"))?;
    let signer = provider.key_provider.load_private_key(secret);
    let signer = signer.map_err(|e| format!("tls: failed to parse private key ({key}): {e}"))?;
    // rustls has this check, too, but can't read certificates of version 1.
    let public = look(&chain[0])?.public_key;
    match signer.public_key() {
        Some(own) if own.as_ref() != public => {
            Err(format!("tls: private key does not match public key (of {key} and {cert})"))
        }
        _ => Ok(CertifiedKey::new(chain, signer)),
    }
}

fn chain(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents(file, FILE_MAX)?).collect();
    let all = all.map_err(|e| format!("{file}: malformed PEM: {e}"))?;
    for certificate in &all {
        look(certificate).map_err(|e| format!("{file}: {e}"))?;
    }
    match all.is_empty() {
        true => Err(format!("tls: failed to find any PEM data in certificate input ({file})")),
        false => Ok(all),
    }
}

/// What the first certificate of a file says.
///
/// # Errors
/// The file is none of certificates.
pub fn first_of(file: &str) -> Result<Shown, String> {
    Ok(look(&chain(file)?[0])?.shown())
}

fn first_end(file: &str, chain: &[CertificateDer<'_>]) -> Option<(String, SystemTime)> {
    let ends = chain.iter().filter_map(|certificate| Some(look(certificate).ok()?.not_after));
    Some((file.to_owned(), ends.min()?))
}

fn contents(file: &str, max: u64) -> Result<Vec<u8>, String> {
    let failed = |e: std::io::Error| format!("open {file}: {}", go::os_text(&e));
    let mut bytes = Vec::new();
    let read = File::open(file).map_err(failed)?.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if read as u64 > max { Err(format!("{file} has more than {max} bytes")) } else { Ok(bytes) }
}

/// What tells a file from what was there before, as far as the file system knows. `None`: there is none.
pub(crate) type Stamp = Option<(u64, u64, i64, i64, i64, i64, u64)>;

/// The stamps of all files.
pub(crate) fn stamps(settings: &Settings) -> Vec<Stamp> {
    let stamp = |file: &&String| {
        let m = std::fs::metadata(file).ok()?;
        Some((m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec(), m.size()))
    };
    let Settings { cert, key, client_cert, client_key, trusted_ca, crl, .. } = settings;
    let files = [cert, key, client_cert, client_key, trusted_ca, crl];
    files.iter().filter(|file| !file.is_empty()).map(stamp).collect()
}

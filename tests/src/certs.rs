//! Authorities and certificates for tests, as files.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);
/// Numbers of certificates; no two of a process are alike.
static NEXT: AtomicU64 = AtomicU64::new(1000);

/// Who signs certificates; its own is `NAME.crt` in a folder.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate, its key and its number.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub serial: u64,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Server,
    Client,
    Both,
}

/// What is issued. Hosts are names or addresses.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    pub name: &'a str,
    pub common_name: &'a str,
    pub hosts: &'a [&'a str],
    pub purpose: Use,
    /// Its time is over.
    pub ended: bool,
    /// Days from now that it counts from and to, where that matters.
    pub days: Option<(i64, i64)>,
    /// It may sign others, though it is none's authority.
    pub may_sign: bool,
}

impl<'a> Wish<'a> {
    /// For servers and clients.
    pub fn both(name: &'a str, common_name: &'a str, hosts: &'a [&'a str]) -> Wish<'a> {
        Wish { name, common_name, hosts, purpose: Use::Both, ended: false, days: None, may_sign: false }
    }

    /// For clients.
    pub fn client(name: &'a str, common_name: &'a str) -> Wish<'a> {
        Wish { purpose: Use::Client, ..Wish::both(name, common_name, &[]) }
    }
}

impl Authority {
    /// As kubeadm makes them: `CA:TRUE`, and usages.
    pub fn new(folder: &Path, name: &str) -> Authority {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let key = KeyPair::generate().expect("keys can be made");
        let cert = params.self_signed(&key).expect("it signs itself");
        let file = folder.join(format!("{name}.crt"));
        write(&file, cert.pem().as_bytes());
        Authority { folder: folder.to_owned(), file, issuer: Issuer::new(params, key) }
    }

    /// The file of its certificate.
    pub fn file(&self) -> String {
        self.file.display().to_string()
    }

    /// Makes `NAME.crt` and `NAME.key`, or replaces them.
    pub fn issue(&self, wish: &Wish<'_>) -> Pair {
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut params = named(wish.common_name, wish.hosts);
        params.serial_number = Some(SerialNumber::from(serial));
        if wish.ended {
            params.not_after = (SystemTime::now() - DAY).into();
        }
        if let Some((from, to)) = wish.days {
            (params.not_before, params.not_after) = (in_days(from).into(), in_days(to).into());
        }
        if wish.may_sign {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match wish.purpose {
            Use::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Use::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Use::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        let secret = KeyPair::generate().expect("keys can be made");
        let signed = params.signed_by(&secret, &self.issuer).expect("it signs");
        let (cert, key) =
            (self.folder.join(format!("{}.crt", wish.name)), self.folder.join(format!("{}.key", wish.name)));
        write(&key, secret.serialize_pem().as_bytes());
        write(&cert, signed.pem().as_bytes());
        Pair { cert, key, serial }
    }

    /// Makes `NAME.crl`, or replaces it: the only form that Go's etcd reads.
    pub fn revoke(&self, name: &str, revoked: &[&Pair]) -> PathBuf {
        let one = |pair: &&Pair| RevokedCertParams {
            serial_number: SerialNumber::from(pair.serial),
            revocation_time: SystemTime::now().into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: SystemTime::now().into(),
            next_update: (SystemTime::now() + 30 * DAY).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(one).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.folder.join(format!("{name}.crl"));
        write(&file, list.signed_by(&self.issuer).expect("it signs").der());
        file
    }
}

impl Pair {
    /// `PREFIXcert=… PREFIXkey=…`, as flags.
    pub fn flags(&self, cert: &str, key: &str) -> [String; 2] {
        [format!("--{cert}={}", self.cert.display()), format!("--{key}={}", self.key.display())]
    }
}

fn named(common_name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("hosts are names or addresses");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = (SystemTime::now() - 2 * DAY).into();
    params.not_after = (SystemTime::now() + 365 * DAY).into();
    params
}

fn in_days(days: i64) -> SystemTime {
    let distance = DAY * u32::try_from(days.unsigned_abs()).expect("a few days");
    if days < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
}

/// At once: nobody reads half of it.
fn write(file: &Path, bytes: &[u8]) {
    let new = file.with_extension("new");
    std::fs::write(&new, bytes).expect("the test's own folder");
    std::fs::rename(&new, file).expect("the test's own folder");
}

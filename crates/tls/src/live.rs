//! The set of files in use, and its successors: it is looked at for every handshake whether the files are still what they
//! were (a `stat` each); if not, they are read again, and count if they go together.
//!
//! Go's etcd reads certificate and key for each handshake, one after the other, and the authorities once: a certificate that
//! was replaced before its key breaks handshakes, and a new authority needs a restart (etcd#11555).

use crate::material::{Anchors, Material, Stamp, stamps};
use crate::settings::Settings;
use crate::words;
use crate::x509::Names;
use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// Certificates that end sooner are warned of when they are read, days.
const SHORT_DAYS: i64 = 30;
const DAY_S: u64 = 86_400;

/// Settings and the files they name.
#[derive(Debug)]
pub struct Live {
    settings: Settings,
    provider: Arc<CryptoProvider>,
    /// The operating system's, once somebody needed them.
    system: OnceLock<Result<Anchors, String>>,
    current: Mutex<Current>,
    reloads: AtomicU64,
    failures: AtomicU64,
}

#[derive(Debug)]
struct Current {
    /// Of the files that were read last, whether or not they were any good.
    stamps: Vec<Stamp>,
    material: Arc<Material>,
    /// Why the newest files do not count.
    stale: Option<String>,
}

/// When a file's certificate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub file: String,
    /// Whole days from now; negative: it has ended.
    pub days: i64,
}

impl Live {
    /// Reads the files.
    ///
    /// # Errors
    /// Settings or files that contradict each other, or a file that is not what it should be; etcd's and Go's texts.
    pub fn open(settings: Settings) -> Result<Arc<Live>, String> {
        settings.check()?;
        let provider = Arc::new(settings.provider()?);
        let stamps = stamps(&settings);
        let material = Material::read(&settings, &provider)?;
        warn_of_ends(&material);
        let current = Current { stamps, material: Arc::new(material), stale: None };
        Ok(Arc::new(Live {
            settings,
            provider,
            system: OnceLock::new(),
            current: Mutex::new(current),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// The newest set that goes together.
    pub(crate) fn material(&self) -> Arc<Material> {
        let mut current = self.current.lock();
        // Before they are read: what is written meanwhile is seen the next time.
        let stamps = stamps(&self.settings);
        if stamps != current.stamps {
            current.stamps = stamps;
            self.reload(&mut current);
        }
        current.material.clone()
    }

    fn reload(&self, current: &mut Current) {
        match Material::read(&self.settings, &self.provider) {
            Ok(material) => {
                warn_of_ends(&material);
                current.material = Arc::new(material);
                current.stale = None;
                self.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    "cert-file" = self.settings.cert,
                    "trusted-ca-file" = self.settings.trusted_ca,
                    "crl-file" = self.settings.crl,
                    "TLS files have changed; new connections use the new ones"
                );
            }
            Err(why) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    error = why,
                    "cert-file" = self.settings.cert,
                    "TLS files have changed and do not go together; those that were read before stay in use"
                );
                current.stale = Some(why);
            }
        }
    }

    /// Whose signatures count.
    ///
    /// # Errors
    /// No file names them, and the operating system has none.
    pub(crate) fn anchors(&self, material: &Material) -> Result<Anchors, String> {
        match &material.anchors {
            Some(anchors) => Ok(anchors.clone()),
            None => self.system.get_or_init(|| Anchors::system(&self.provider)).clone(),
        }
    }

    /// The names of the certificate that is shown to servers, where one is.
    pub fn own_names(&self) -> Option<Names> {
        let material = self.material();
        let leaf = material.showing.as_ref()?.cert.first()?;
        crate::x509::look(leaf).ok().map(|seen| seen.names)
    }

    /// How often new files were taken into use.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// How often changed files were of no use.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Why the files that are there now are not those in use; `None`: they are.
    pub fn stale(&self) -> Option<String> {
        self.current.lock().stale.clone()
    }

    /// When the certificates in use end, by file. Files that have changed are looked at first, as for a handshake.
    pub fn expiries(&self) -> Vec<Expiry> {
        let ends = self.material();
        ends.ends.iter().map(|(file, end)| Expiry { file: file.clone(), days: days_to(*end) }).collect()
    }
}

fn days_to(end: SystemTime) -> i64 {
    let days = |d: std::time::Duration| i64::try_from(d.as_secs() / DAY_S).unwrap_or(i64::MAX);
    match end.duration_since(SystemTime::now()) {
        Ok(left) => days(left),
        Err(past) => -1 - days(past.duration()),
    }
}

fn warn_of_ends(material: &Material) {
    for (file, end) in &material.ends {
        let days = days_to(*end);
        if days < SHORT_DAYS {
            let when = words::time(*end);
            tracing::warn!(file, days, "not-after" = when, "a certificate ends soon, or has ended: replace the file");
        }
    }
}

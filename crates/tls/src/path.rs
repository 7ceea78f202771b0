//! Chains of certificates that webpki refuses and Go takes: a leaf that may sign others itself (`CA:TRUE`: self-signed ones,
//! and what sloppy recipes make), one of version 1 (`openssl x509 -req` without extensions), one for any purpose.
//!
//! Only such leaves come here. The rules are webpki's and Go's common ones: names chain, signatures hold, everybody's time
//! is now, everybody above the leaf may sign, and the leaf is for this purpose. Chains with name constraints, or with
//! critical extensions beyond those that are looked at here, are refused.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error};
use std::time::{Duration, SystemTime};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode as _, Encode as _, Reader as _, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages};

/// Certificates between leaf and anchor.
const DEPTH_MAX: usize = 6;
/// Signatures that are tried for one chain: certificates with equal names must not make it a day's work.
const SIGNATURES_MAX: usize = 32;

const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const ALTERNATIVE_NAMES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const PURPOSES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
/// Extensions that are looked at: others must not be critical.
const KNOWN: [ObjectIdentifier; 4] = [KEY_USAGE, ALTERNATIVE_NAMES, BASIC_CONSTRAINTS, PURPOSES];

/// What a leaf has to be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Server,
    Client,
}

impl Purpose {
    fn id(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Purpose::Server => "1.3.6.1.5.5.7.3.1",
            Purpose::Client => "1.3.6.1.5.5.7.3.2",
        })
    }
}

/// One certificate with the bytes that its issuer signed.
struct Link<'a> {
    der: &'a [u8],
    signed: &'a [u8],
    parsed: Certificate,
}

impl<'a> Link<'a> {
    fn of(der: &'a CertificateDer<'_>) -> Option<Link<'a>> {
        let whole = AnyRef::from_der(der).ok()?;
        let signed = SliceReader::new(whole.value()).ok()?.tlv_bytes().ok()?;
        Some(Link { der, signed, parsed: Certificate::from_der(der).ok()? })
    }

    fn is_of_version_3(&self) -> bool {
        self.parsed.tbs_certificate().version() == Version::V3
    }

    fn constraints(&self) -> Option<BasicConstraints> {
        self.parsed.tbs_certificate().get_extension::<BasicConstraints>().ok()?.map(|(_, found)| found)
    }

    fn purposes(&self) -> Option<Vec<ObjectIdentifier>> {
        self.parsed.tbs_certificate().get_extension::<ExtendedKeyUsage>().ok()?.map(|(_, found)| found.0)
    }

    fn covers(&self, now: UnixTime) -> Result<(), CertificateError> {
        let validity = self.parsed.tbs_certificate().validity();
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let unix = |time: SystemTime| UnixTime::since_unix_epoch(Duration::from_secs(seconds(time)));
        let (not_before, not_after) =
            (unix(validity.not_before.to_system_time()), unix(validity.not_after.to_system_time()));
        if now < not_before {
            return Err(CertificateError::NotValidYetContext { time: now, not_before });
        }
        if now > not_after {
            return Err(CertificateError::ExpiredContext { time: now, not_after });
        }
        Ok(())
    }

    /// Whether every extension that must be understood is, and those that are looked at can be read: what can't be would
    /// otherwise pass for absent, and a purpose that is absent is any.
    fn is_understood(&self) -> bool {
        let tbs = self.parsed.tbs_certificate();
        let readable = tbs.get_extension::<BasicConstraints>().is_ok()
            && tbs.get_extension::<ExtendedKeyUsage>().is_ok()
            && tbs.get_extension::<KeyUsage>().is_ok();
        let extensions = self.parsed.tbs_certificate().extensions().map_or(&[][..], Vec::as_slice);
        let strange =
            |id: &ObjectIdentifier, critical: bool| *id == NAME_CONSTRAINTS || (critical && !KNOWN.contains(id));
        readable && !extensions.iter().any(|e| strange(&e.extn_id, e.critical))
    }

    /// Whether it may sign others with so many between it and the leaf.
    fn may_sign(&self, below: usize) -> bool {
        let signs = match self.parsed.tbs_certificate().get_extension::<KeyUsage>() {
            Ok(usage) => usage.is_none_or(|(_, usage)| usage.0.contains(KeyUsages::KeyCertSign)),
            Err(_) => false,
        };
        let deep_enough = |c: &BasicConstraints| c.path_len_constraint.is_none_or(|most| below <= usize::from(most));
        signs && self.constraints().is_some_and(|c| c.ca && deep_enough(&c))
    }
}

/// Whether a leaf is one of those that are judged here.
pub(crate) fn is_unusual(leaf: &CertificateDer<'_>) -> bool {
    let Some(leaf) = Link::of(leaf) else { return false };
    !leaf.is_of_version_3()
        || leaf.constraints().is_some_and(|c| c.ca)
        || leaf.purposes().is_some_and(|all| all.contains(&ANY_PURPOSE))
}

/// Whether a leaf is signed, perhaps through `others`, by an anchor, or is one.
///
/// # Errors
/// It is not.
pub(crate) fn verify(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    anchors: &[CertificateDer<'_>],
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
    purpose: Purpose,
) -> Result<(), CertificateError> {
    let leaf = Link::of(leaf).ok_or(CertificateError::BadEncoding)?;
    leaf.covers(now)?;
    if !leaf.is_understood() {
        return Err(CertificateError::UnhandledCriticalExtension);
    }
    if leaf.purposes().is_some_and(|all| !all.contains(&ANY_PURPOSE) && !all.contains(&purpose.id())) {
        return Err(CertificateError::InvalidPurpose);
    }
    if anchors.iter().any(|anchor| anchor.as_ref() == leaf.der) {
        return Ok(());
    }
    let usable = |issuer: &Link<'_>| issuer.covers(now).is_ok() && issuer.is_understood();
    let roots: Vec<Link<'_>> = anchors.iter().filter_map(Link::of).filter(usable).collect();
    let between: Vec<Link<'_>> = others.iter().filter_map(Link::of).filter(usable).collect();
    let mut search = Search { roots: &roots, between: &between, algorithms, left: SIGNATURES_MAX };
    search.climb(&leaf, 0).then_some(()).ok_or(CertificateError::UnknownIssuer)
}

struct Search<'a> {
    roots: &'a [Link<'a>],
    between: &'a [Link<'a>],
    algorithms: &'a WebPkiSupportedAlgorithms,
    /// Signatures that may still be tried.
    left: usize,
}

impl Search<'_> {
    /// Whether an anchor is reached, with so many certificates below this one.
    fn climb(&mut self, link: &Link<'_>, below: usize) -> bool {
        let (roots, between) = (self.roots, self.between);
        // An anchor of version 1 has no constraints that could say that it signs; it was named as one that does.
        let root_signs = |root: &&Link<'_>| !root.is_of_version_3() || root.may_sign(below);
        if roots.iter().filter(root_signs).any(|root| self.has_signed(root, link)) {
            return true;
        }
        let mut issuers = between.iter().filter(|issuer| issuer.der != link.der && issuer.may_sign(below));
        below < DEPTH_MAX && issuers.any(|issuer| self.has_signed(issuer, link) && self.climb(issuer, below + 1))
    }

    fn has_signed(&mut self, issuer: &Link<'_>, link: &Link<'_>) -> bool {
        let (below, above) = (link.parsed.tbs_certificate(), issuer.parsed.tbs_certificate());
        if below.issuer() != above.subject() || self.left == 0 {
            return false;
        }
        self.left -= 1;
        let key = above.subject_public_key_info();
        let ids = (key.algorithm.to_der(), link.parsed.signature_algorithm().to_der());
        let (Ok(key_id), Ok(signature_id)) = ids else { return false };
        let (Some(signature), Some(bits)) = (link.parsed.signature().as_bytes(), key.subject_public_key.as_bytes())
        else {
            return false;
        };
        self.algorithms.all.iter().any(|algorithm| {
            content(&key_id) == Some(&algorithm.public_key_alg_id())
                && content(&signature_id) == Some(&algorithm.signature_alg_id())
                && algorithm.verify_signature(bits, link.signed, signature).is_ok()
        })
    }
}

/// What is in a sequence.
fn content(der: &[u8]) -> Option<&[u8]> {
    AnyRef::from_der(der).ok().map(|any| any.value())
}

/// Whether a handshake was signed with the key of a certificate that webpki can't read (version 1).
///
/// # Errors
/// It was not.
pub(crate) fn signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
    is_tls13: bool,
) -> Result<(), Error> {
    let bad = || Error::from(CertificateError::BadSignature);
    let link = Link::of(certificate).filter(|link| !link.is_of_version_3()).ok_or_else(bad)?;
    let key = link.parsed.tbs_certificate().subject_public_key_info();
    if is_tls13 {
        let der = SubjectPublicKeyInfoDer::from(key.to_der().map_err(|_| bad())?);
        return rustls::crypto::verify_tls13_signature_with_raw_key(message, &der, signed, algorithms).map(drop);
    }
    let schemes = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
    let bits = key.subject_public_key.as_bytes().ok_or_else(bad)?;
    let id = key.algorithm.to_der().map_err(|_| bad())?;
    let mut candidates = schemes.flat_map(|(_, algorithms)| algorithms.iter());
    let holds = candidates.any(|algorithm| {
        content(&id) == Some(&algorithm.public_key_alg_id())
            && algorithm.verify_signature(bits, message, signed.signature()).is_ok()
    });
    if holds { Ok(()) } else { Err(bad()) }
}

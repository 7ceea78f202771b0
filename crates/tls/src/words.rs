//! Failures as Go's `crypto/tls` and `crypto/x509` tell them: logs of etcd are searched for these texts.

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use std::io;
use std::time::{Duration, SystemTime};

/// A failed handshake, read or write, in Go's words; what is not TLS's, as it is.
pub fn told(e: &io::Error) -> String {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => of(error),
        None => match e.kind() {
            io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
            io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
            _ => go::os_text(e),
        },
    }
}

/// What stands before an alert.
const ALERT: &str = "remote error: tls: ";

/// The alert in a text of [`told`], where there is one.
pub fn alert(told: &str) -> Option<&str> {
    told.strip_prefix(ALERT)
}

/// An error of TLS in Go's words.
pub(crate) fn of(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => format!("{ALERT}{}", of_alert(*alert)),
        Error::InvalidCertificate(why) => format!("tls: failed to verify certificate: {}", of_certificate(why)),
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::InvalidMessage(_) => "tls: first record does not look like a TLS handshake".to_owned(),
        Error::NoApplicationProtocol => "tls: client requested unsupported application protocols".to_owned(),
        Error::PeerIncompatible(why) => format!("tls: {}", of_incompatible(why)),
        other => format!("tls: {other}"),
    }
}

fn of_incompatible(why: &PeerIncompatible) -> String {
    match why {
        PeerIncompatible::NoCipherSuitesInCommon => "no cipher suite supported by both client and server".to_owned(),
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic => "client offered only unsupported versions".to_owned(),
        PeerIncompatible::NoSignatureSchemesInCommon => {
            "peer doesn't support any of the certificate's signature algorithms".to_owned()
        }
        other => format!("{other:?}"),
    }
}

fn of_certificate(why: &CertificateError) -> String {
    let outside = |now: UnixTime, relation: &str, bound: UnixTime| {
        let (now, bound) = (time(of_unix(now)), time(of_unix(bound)));
        format!("x509: certificate has expired or is not yet valid: current time {now} is {relation} {bound}")
    };
    match why {
        CertificateError::ExpiredContext { time, not_after } => outside(*time, "after", *not_after),
        CertificateError::NotValidYetContext { time, not_before } => outside(*time, "before", *not_before),
        CertificateError::Expired | CertificateError::NotValidYet => {
            "x509: certificate has expired or is not yet valid: ".to_owned()
        }
        CertificateError::UnknownIssuer => "x509: certificate signed by unknown authority".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "x509: certificate specifies an incompatible key usage".to_owned()
        }
        CertificateError::BadEncoding => "x509: malformed certificate".to_owned(),
        other => format!("x509: {other}"),
    }
}

/// Go's `alertText`.
pub(crate) fn of_alert(alert: AlertDescription) -> String {
    use AlertDescription as A;
    let text = match alert {
        A::CloseNotify => "close notify",
        A::UnexpectedMessage => "unexpected message",
        A::BadRecordMac => "bad record MAC",
        A::RecordOverflow => "record overflow",
        A::HandshakeFailure => "handshake failure",
        A::BadCertificate => "bad certificate",
        A::UnsupportedCertificate => "unsupported certificate",
        A::CertificateRevoked => "revoked certificate",
        A::CertificateExpired => "expired certificate",
        A::CertificateUnknown => "unknown certificate",
        A::IllegalParameter => "illegal parameter",
        A::UnknownCA => "unknown certificate authority",
        A::AccessDenied => "access denied",
        A::DecodeError => "error decoding message",
        A::DecryptError => "error decrypting message",
        A::ProtocolVersion => "protocol version not supported",
        A::InsufficientSecurity => "insufficient security level",
        A::InternalError => "internal error",
        A::UserCanceled => "user canceled",
        A::MissingExtension => "missing extension",
        A::UnsupportedExtension => "unsupported extension",
        A::UnrecognisedName => "unrecognized name",
        A::CertificateRequired => "certificate required",
        A::NoApplicationProtocol => "no application protocol",
        other => return format!("{other:?}"),
    };
    text.to_owned()
}

fn of_unix(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// RFC 3339, whole seconds, UTC.
pub fn time(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let stamp = i64::try_from(seconds).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    stamp.unwrap_or(jiff::Timestamp::MAX).to_string()
}

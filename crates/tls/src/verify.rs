//! Who is let in, and which servers are believed: webpki's judgement of the chain, with Go's two cases more (`path`), then
//! etcd's own rules about the leaf.

use crate::material::{Anchors, Material};
use crate::path::{self, Purpose};
use crate::settings::Settings;
use crate::x509::{self, Names, Shown};
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::sync::Arc;

/// What etcd says where a certificate is good but not on a list.
const NOT_ALLOWED: &str = "client certificate authentication failed";

/// What one handshake found out: TLS's own errors have no room for it.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<Found>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// The certificate that the other side showed.
    pub shown: Option<Shown>,
    /// Why it was refused, in etcd's words.
    pub refusal: Option<String>,
}

impl Findings {
    pub fn take(&self) -> Found {
        std::mem::take(&mut self.0.lock())
    }

    /// The error that makes TLS send the alert which Go sends.
    fn refuse(&self, why: String, error: CertificateError) -> Error {
        self.0.lock().refusal = Some(why);
        error.into()
    }

    fn look(&self, leaf: &CertificateDer<'_>) -> Result<Names, Error> {
        let seen = x509::look(leaf).map_err(|why| self.refuse(why, CertificateError::BadEncoding))?;
        self.0.lock().shown = Some(seen.shown());
        Ok(seen.names)
    }
}

/// How one side of one handshake judges the other.
#[derive(Debug)]
pub(crate) struct Judge {
    pub settings: Settings,
    pub material: Arc<Material>,
    /// `None`: any certificate will do.
    pub anchors: Option<Anchors>,
    pub algorithms: WebPkiSupportedAlgorithms,
    pub findings: Arc<Findings>,
}

impl Judge {
    /// The rules about a leaf whose chain holds.
    fn is_allowed(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], names: &Names) -> Result<(), Error> {
        let Settings { allowed_cns, allowed_hostnames, .. } = &self.settings;
        let on_list = match (allowed_cns.is_empty(), allowed_hostnames.is_empty()) {
            (true, true) => true,
            // As in Go: who believes anybody has verified nobody who could be on a list.
            _ if self.anchors.is_none() => false,
            (false, _) => allowed_cns.contains(&names.common_name),
            (true, false) => allowed_hostnames.iter().any(|host| is_valid_for(leaf, host)),
        };
        if !on_list {
            return Err(self.findings.refuse(NOT_ALLOWED.to_owned(), CertificateError::BadEncoding));
        }
        let Some(revoked) = &self.material.revoked else { return Ok(()) };
        let shown = std::iter::once(leaf).chain(others);
        revoked.check(shown).map_err(|why| self.findings.refuse(why, CertificateError::Revoked))
    }

    fn unusual(
        &self,
        verdict: Result<(), Error>,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        purpose: Purpose,
    ) -> Result<(), Error> {
        match (verdict, &self.anchors) {
            (Err(_), Some(anchors)) if path::is_unusual(leaf) => {
                Ok(path::verify(leaf, others, &anchors.certificates, &self.algorithms, now, purpose)?)
            }
            (verdict, _) => verdict,
        }
    }

    fn signature(
        &self,
        verdict: Result<HandshakeSignatureValid, Error>,
        (message, leaf, signed): (&[u8], &CertificateDer<'_>, &DigitallySignedStruct),
        is_tls13: bool,
    ) -> Result<HandshakeSignatureValid, Error> {
        verdict.or_else(|why| {
            let held = path::signature(message, leaf, signed, &self.algorithms, is_tls13);
            held.map(|()| HandshakeSignatureValid::assertion()).map_err(|_| why)
        })
    }
}

/// Whether a certificate is valid for a host's name or address.
fn is_valid_for(leaf: &CertificateDer<'_>, host: &str) -> bool {
    let name = ServerName::try_from(host);
    let parsed = ParsedCertificate::try_from(leaf);
    matches!((name, parsed), (Ok(name), Ok(parsed)) if rustls::client::verify_server_name(&parsed, &name).is_ok())
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.anchors.as_ref().map_or(&[], |anchors| anchors.of_clients.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let names = self.findings.look(leaf)?;
        let verdict = match &self.anchors {
            Some(anchors) => anchors.of_clients.verify_client_cert(leaf, others, now).map(drop),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        self.unusual(verdict, leaf, others, now, Purpose::Client)?;
        self.is_allowed(leaf, others, &names)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verdict = verify_tls12_signature(message, leaf, signed, &self.algorithms);
        self.signature(verdict, (message, leaf, signed), false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verdict = verify_tls13_signature(message, leaf, signed, &self.algorithms);
        self.signature(verdict, (message, leaf, signed), true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let names = self.findings.look(leaf)?;
        if let Some(anchors) = &self.anchors {
            let verdict = anchors.of_servers.verify_server_cert(leaf, others, server, ocsp, now).map(drop);
            let is_unusual = verdict.is_err() && path::is_unusual(leaf);
            self.unusual(verdict, leaf, others, now, Purpose::Server)
                .map_err(|why| self.misnamed(why, &names, server))?;
            let host = server.to_str();
            if is_unusual && !is_valid_for(leaf, &host) {
                return Err(self.findings.refuse(names.mismatch(&host), CertificateError::NotValidForName));
            }
        }
        self.is_allowed(leaf, others, &names)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls12_signature(self, message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls13_signature(self, message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Judge {
    /// Go's text for a certificate of somebody else.
    fn misnamed(&self, why: Error, names: &Names, server: &ServerName<'_>) -> Error {
        match why {
            Error::InvalidCertificate(
                error @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
            ) => {
                let text = format!("tls: failed to verify certificate: {}", names.mismatch(&server.to_str()));
                self.findings.refuse(text, error)
            }
            other => other,
        }
    }
}

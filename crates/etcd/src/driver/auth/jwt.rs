//! Signed tokens (JSON Web Tokens, RFC 7519), as etcd makes and reads them with golang-jwt: claims `username`,
//! `revision` and `exp`; one method of signing, fixed by the configuration; no leeway.

use super::keys::pem;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use server::access::User;
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::warn;

/// Nanoseconds a token lives when no `ttl` is given (etcd `DefaultTTL`).
const TTL_DEFAULT_NS: i64 = 300_000_000_000;
const INVALID_OPTIONS: &str = "auth: invalid auth options";
const MISSING_KEY: &str = "auth: missing key data";
const KEY_MISMATCH: &str = "auth: public and private keys don't match";

/// A method of signing.
struct Method {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Hmac(hmac::Algorithm),
    Rsa(&'static signature::RsaSignatureEncoding, &'static signature::RsaParameters),
    Ec(&'static signature::EcdsaSigningAlgorithm, &'static signature::EcdsaVerificationAlgorithm),
    Ed,
}

const METHODS: &[Method] = &[
    Method { name: "RS256", kind: Kind::Rsa(&signature::RSA_PKCS1_SHA256, &signature::RSA_PKCS1_2048_8192_SHA256) },
    Method { name: "RS384", kind: Kind::Rsa(&signature::RSA_PKCS1_SHA384, &signature::RSA_PKCS1_2048_8192_SHA384) },
    Method { name: "RS512", kind: Kind::Rsa(&signature::RSA_PKCS1_SHA512, &signature::RSA_PKCS1_2048_8192_SHA512) },
    Method { name: "PS256", kind: Kind::Rsa(&signature::RSA_PSS_SHA256, &signature::RSA_PSS_2048_8192_SHA256) },
    Method { name: "PS384", kind: Kind::Rsa(&signature::RSA_PSS_SHA384, &signature::RSA_PSS_2048_8192_SHA384) },
    Method { name: "PS512", kind: Kind::Rsa(&signature::RSA_PSS_SHA512, &signature::RSA_PSS_2048_8192_SHA512) },
    Method {
        name: "ES256",
        kind: Kind::Ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &signature::ECDSA_P256_SHA256_FIXED),
    },
    Method {
        name: "ES384",
        kind: Kind::Ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, &signature::ECDSA_P384_SHA384_FIXED),
    },
    Method {
        name: "ES512",
        kind: Kind::Ec(&signature::ECDSA_P521_SHA512_FIXED_SIGNING, &signature::ECDSA_P521_SHA512_FIXED),
    },
    Method { name: "EdDSA", kind: Kind::Ed },
    Method { name: "HS256", kind: Kind::Hmac(hmac::HMAC_SHA256) },
    Method { name: "HS384", kind: Kind::Hmac(hmac::HMAC_SHA384) },
    Method { name: "HS512", kind: Kind::Hmac(hmac::HMAC_SHA512) },
];

/// What signs.
enum Signer {
    Hmac(Arc<hmac::Key>),
    Rsa(RsaKeyPair, &'static signature::RsaSignatureEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// What verifies.
enum Verifier {
    Hmac(Arc<hmac::Key>),
    Public(ParsedPublicKey),
}

/// Makes and reads signed tokens.
pub struct Jwt {
    method: &'static str,
    ttl_s: i64,
    /// `None`: there is only a public key.
    signer: Option<Signer>,
    verifier: Verifier,
}

impl Jwt {
    /// By the options of `--auth-token jwt,…`.
    ///
    /// # Errors
    /// Options or keys are no good.
    pub fn new(options: &BTreeMap<&str, &str>) -> Result<Jwt, String> {
        let unknown: Vec<_> =
            options.keys().filter(|key| !["sign-method", "pub-key", "priv-key", "ttl"].contains(key)).collect();
        if !unknown.is_empty() {
            warn!(keys = ?unknown, "unknown JWT options");
        }
        let invalid = |why: &str| {
            warn!(error = why, "problem loading JWT options");
            INVALID_OPTIONS.to_owned()
        };
        let given = |name: &str| options.get(name).copied().filter(|value| !value.is_empty());
        let ttl = given("ttl").map_or(Ok(TTL_DEFAULT_NS), go::parse_duration).map_err(|e| invalid(&e))?;
        let read = |path: &str| std::fs::read(path).map_err(|e| invalid(&format!("{path}: {e}")));
        let public = given("pub-key").map(read).transpose()?.filter(|key| !key.is_empty());
        let private = given("priv-key").map(read).transpose()?.filter(|key| !key.is_empty());
        let method = given("sign-method").and_then(|name| METHODS.iter().find(|method| method.name == name));
        let method = method.ok_or_else(|| invalid("auth: invalid auth signature method"))?;
        Jwt::with_keys(method, ttl / 1_000_000_000, private.as_deref(), public.as_deref())
    }

    fn with_keys(method: &Method, ttl_s: i64, private: Option<&[u8]>, public: Option<&[u8]>) -> Result<Jwt, String> {
        let signer = private.map(|key| signer(method.kind, key)).transpose()?;
        let verifier = match (&signer, public) {
            (None, None) => return Err(MISSING_KEY.into()),
            (Some(signer @ Signer::Hmac(_)), _) | (Some(signer), None) => signer.verifier(method.kind)?,
            (_, Some(public)) => public_key(method.kind, public)?,
        };
        let jwt = Jwt { method: method.name, ttl_s, signer, verifier };
        jwt.check_pair()?;
        Ok(jwt)
    }

    /// Keys that belong together verify what they sign.
    fn check_pair(&self) -> Result<(), String> {
        let Some(signer) = &self.signer else { return Ok(()) };
        let probe = b"oxetcd";
        let signature = signer.sign(probe)?;
        if self.verifier.verifies(probe, &signature) { Ok(()) } else { Err(KEY_MISMATCH.into()) }
    }

    /// A token for the user that rests on this revision of users and roles.
    ///
    /// # Errors
    /// There is no private key, or it does not sign.
    pub fn sign(&self, user: &str, revision: u64, now_s: i64) -> Result<String, api::Error> {
        let exp = now_s.saturating_add(self.ttl_s);
        self.sign_claims(&json!({"exp": exp, "revision": revision, "username": user}).to_string())
    }

    /// # Errors
    /// As [`Jwt::sign`].
    pub fn sign_claims(&self, claims: &str) -> Result<String, api::Error> {
        let verify_only = || api::Error::Other("auth: token signing attempted with verify-only key".into());
        let signer = self.signer.as_ref().ok_or_else(verify_only)?;
        let head = json!({"alg": self.method, "typ": "JWT"}).to_string();
        let signed = format!("{}.{}", BASE64.encode(head), BASE64.encode(claims));
        let signature = signer.sign(signed.as_bytes()).map_err(|e| api::Error::Other(e.into()))?;
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }

    /// Whose token it is, if it is good now.
    pub fn user(&self, token: &str, now_s: i64) -> Option<User> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let head = object(head)?;
        if head.get("alg")?.as_str()? != self.method {
            return None;
        }
        if !self.verifier.verifies(signed.as_bytes(), &BASE64.decode(signature).ok()?) {
            return None;
        }
        let claims = object(claims)?;
        in_time(&claims, now_s)?;
        let name = claims.get("username")?.as_str()?.to_owned();
        // Go reads numbers as floating-point ones. `as` cuts what is out of range.
        let revision = claims.get("revision")?.as_f64()? as u64;
        Some(User { name, revision: Some(revision) })
    }
}

/// With a key that everybody knows: for the fuzzer.
#[doc(hidden)]
pub fn with_known_key() -> Jwt {
    let method = METHODS.iter().find(|method| method.name == "HS256").expect("it is in the table");
    Jwt::with_keys(method, 300, Some(b"known"), None).expect("any key will do")
}

fn object(text: &str) -> Option<serde_json::Map<String, Value>> {
    serde_json::from_slice(&BASE64.decode(text).ok()?).ok()
}

/// `exp` and `nbf`, where there are any, in whole seconds.
fn in_time(claims: &serde_json::Map<String, Value>, now_s: i64) -> Option<()> {
    let number = |name: &str| match claims.get(name) {
        None => Some(None),
        Some(value) => value.as_f64().map(|seconds| Some(seconds.floor())),
    };
    let now = now_s as f64;
    let expired = number("exp")?.is_some_and(|exp| now >= exp);
    let early = number("nbf")?.is_some_and(|nbf| now < nbf);
    (!expired && !early).then_some(())
}

fn signer(kind: Kind, key: &[u8]) -> Result<Signer, String> {
    if let Kind::Hmac(algorithm) = kind {
        return Ok(Signer::Hmac(Arc::new(hmac::Key::new(algorithm, key))));
    }
    let (label, der) = pem(key)?;
    let refused = |e: aws_lc_rs::error::KeyRejected| format!("auth: the private key is no good: {e}");
    match kind {
        Kind::Rsa(encoding, _) => {
            let pair = if label.starts_with("RSA") { RsaKeyPair::from_der(&der) } else { RsaKeyPair::from_pkcs8(&der) };
            Ok(Signer::Rsa(pair.map_err(refused)?, encoding))
        }
        Kind::Ec(algorithm, _) => EcdsaKeyPair::from_private_key_der(algorithm, &der).map(Signer::Ec).map_err(refused),
        Kind::Ed | Kind::Hmac(_) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(Signer::Ed).map_err(refused),
    }
}

fn public_key(kind: Kind, key: &[u8]) -> Result<Verifier, String> {
    match kind {
        // Of these the private key is the only one.
        Kind::Hmac(_) => Err(MISSING_KEY.into()),
        _ => parsed(kind, &pem(key)?.1),
    }
}

fn parsed(kind: Kind, key: &[u8]) -> Result<Verifier, String> {
    let key = match kind {
        Kind::Rsa(_, algorithm) => ParsedPublicKey::new(algorithm, key),
        Kind::Ec(_, algorithm) => ParsedPublicKey::new(algorithm, key),
        Kind::Ed | Kind::Hmac(_) => ParsedPublicKey::new(&signature::ED25519, key),
    };
    key.map(Verifier::Public).map_err(|e| format!("auth: the public key is no good: {e}"))
}

impl Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let failed = |_| "auth: the private key does not sign".to_owned();
        Ok(match self {
            Signer::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Signer::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &SystemRandom::new(), message, &mut signature).map_err(failed)?;
                signature
            }
            Signer::Ec(pair) => pair.sign(&SystemRandom::new(), message).map_err(failed)?.as_ref().to_vec(),
            Signer::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }

    /// What verifies its signatures.
    fn verifier(&self, kind: Kind) -> Result<Verifier, String> {
        match self {
            Signer::Hmac(key) => Ok(Verifier::Hmac(key.clone())),
            Signer::Rsa(pair, _) => parsed(kind, pair.public_key().as_ref()),
            Signer::Ec(pair) => parsed(kind, pair.public_key().as_ref()),
            Signer::Ed(pair) => parsed(kind, pair.public_key().as_ref()),
        }
    }
}

impl Verifier {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Verifier::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Verifier::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn file(name: &str) -> String {
        format!("{}/../../tests/testdata/jwt/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    fn jwt(method: &str, private: Option<&str>, public: Option<&str>) -> Result<Jwt, String> {
        let (private, public) = (private.map(file), public.map(file));
        let mut options = BTreeMap::from([("sign-method", method), ("ttl", "1m")]);
        options.extend(private.as_deref().map(|path| ("priv-key", path)));
        options.extend(public.as_deref().map(|path| ("pub-key", path)));
        Jwt::new(&options)
    }

    const KEYS: [(&str, &str, Option<&str>); 14] = [
        ("RS256", "rsa.key", Some("rsa.pub")),
        ("RS256", "rsa8.key", Some("rsa.pub")),
        ("RS384", "rsa.key", Some("rsa.pub")),
        ("RS512", "rsa.key", Some("rsa.pub")),
        ("PS256", "rsa.key", Some("rsa.pub")),
        ("PS384", "rsa.key", Some("rsa.pub")),
        ("PS512", "rsa.key", Some("rsa.pub")),
        ("ES256", "ec256.key", Some("ec256.pub")),
        ("ES384", "ec384.key", Some("ec384.pub")),
        ("ES512", "ec521.key", Some("ec521.pub")),
        ("EdDSA", "ed.key", Some("ed.pub")),
        ("HS256", "hmac.key", None),
        ("HS384", "hmac.key", None),
        ("HS512", "hmac.key", None),
    ];

    #[test]
    fn what_is_signed_is_read_with_either_key_until_its_time_is_over() {
        for (method, private, public) in KEYS {
            let signer = jwt(method, Some(private), None).unwrap();
            let token = signer.sign("al\"ice", 7, NOW).unwrap();
            let user = Some(User { name: "al\"ice".into(), revision: Some(7) });
            let both = jwt(method, Some(private), public).unwrap();
            for reader in [Some(&signer), Some(&both), public.map(|p| jwt(method, None, Some(p)).unwrap()).as_ref()] {
                let Some(reader) = reader else { continue };
                assert_eq!(reader.user(&token, NOW + 59), user, "{method}");
                assert_eq!(reader.user(&token, NOW + 60), None, "{method}");
                let (signed, signature) = token.rsplit_once('.').unwrap();
                assert_eq!(reader.user(&format!("{signed}.A{signature}"), NOW), None, "{method}");
                assert_eq!(reader.user(&token.replacen('.', "..", 1), NOW), None, "{method}");
            }
        }
    }

    #[test]
    fn a_token_of_another_method_is_none_even_where_the_key_fits() {
        let (small, large) =
            (jwt("RS256", Some("rsa.key"), None).unwrap(), jwt("RS512", Some("rsa.key"), None).unwrap());
        assert_eq!(large.user(&small.sign("root", 1, NOW).unwrap(), NOW), None);
        let none =
            format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(r#"{"username":"root","revision":1}"#));
        assert_eq!(small.user(&none, NOW), None);
    }

    /// etcd #15676: claims that are missing or of the wrong kind ended the process.
    #[test]
    fn claims_that_are_missing_or_strange_make_no_user() {
        let jwt = jwt("HS256", Some("hmac.key"), None).unwrap();
        let forge = |claims: &str| {
            let signed = format!("{}.{}", BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#), BASE64.encode(claims));
            let signature = jwt.signer.as_ref().unwrap().sign(signed.as_bytes()).unwrap();
            format!("{signed}.{}", BASE64.encode(signature))
        };
        let user = |claims: &str| jwt.user(&forge(claims), NOW);
        let root = |revision| Some(User { name: "root".into(), revision: Some(revision) });
        assert_eq!(user(r#"{"username":"root","revision":3}"#), root(3), "without an end");
        assert_eq!(user(r#"{"username":"root","revision":3.9,"nbf":1800000000}"#), root(3));
        assert_eq!(user(r#"{"username":"root","revision":-1}"#), root(0));
        for claims in [
            "{}",
            "[]",
            "x",
            r#"{"username":"root"}"#,
            r#"{"revision":3}"#,
            r#"{"username":7,"revision":3}"#,
            r#"{"username":"root","revision":"3"}"#,
            r#"{"username":"root","revision":3,"exp":"soon"}"#,
            r#"{"username":"root","revision":3,"exp":1800000000}"#,
            r#"{"username":"root","revision":3,"nbf":1800000001}"#,
        ] {
            assert_eq!(user(claims), None, "{claims}");
        }
        for token in ["", ".", "..", "a.b.c", "....", "\u{e9}.\u{e9}.\u{e9}"] {
            assert_eq!(jwt.user(token, NOW), None, "{token}");
        }
    }

    #[test]
    fn keys_and_options_that_do_not_fit_are_refused() {
        let refusal = |method, private, public| jwt(method, private, public).err();
        assert_eq!(refusal("RS256", Some("rsa.key"), Some("ec256.pub")).map(|e| e.len() > 10), Some(true));
        assert_eq!(refusal("ES256", Some("ec384.key"), None).map(|e| e.len() > 10), Some(true));
        assert_eq!(refusal("ES256", None, None).as_deref(), Some(MISSING_KEY));
        assert_eq!(refusal("HS256", None, Some("rsa.pub")).as_deref(), Some(MISSING_KEY));
        assert_eq!(refusal("none", Some("rsa.key"), None).as_deref(), Some(INVALID_OPTIONS));
        assert_eq!(refusal("RS256", Some("no such file"), None).as_deref(), Some(INVALID_OPTIONS));
        assert_eq!(Jwt::new(&BTreeMap::from([("ttl", "x")])).err().as_deref(), Some(INVALID_OPTIONS));
        let other = Ed25519KeyPair::generate().unwrap();
        let verifier = parsed(Kind::Ed, other.public_key().as_ref()).unwrap();
        let pair = Jwt { verifier, ..jwt("EdDSA", Some("ed.key"), None).unwrap() };
        assert_eq!(pair.check_pair().err().as_deref(), Some(KEY_MISMATCH));
    }

    #[test]
    fn only_a_private_key_signs() {
        let reader = jwt("RS256", None, Some("rsa.pub")).unwrap();
        let text = "auth: token signing attempted with verify-only key";
        assert_eq!(reader.sign("root", 1, NOW), Err(api::Error::Other(text.into())));
    }
}

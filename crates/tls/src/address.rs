//! Whether a member's certificate is for the address that it connects from (etcd `listener_tls.go`, `checkCertSAN`): a
//! stolen certificate is of no use elsewhere.

use crate::x509::Names;
use std::net::IpAddr;
use std::sync::Arc;

/// The names that an address has, by looking it up in reverse. May block.
pub type NamesOf = Arc<dyn Fn(IpAddr) -> Result<Vec<String>, String> + Send + Sync>;

/// Whether a certificate with these names may come from this address: it names no host at all, or the address, or a host
/// with this address, or (with wildcards) one of the names that the address has.
///
/// # Errors
/// It may not: Go's text, and what helps.
pub async fn check_address(names: &Names, remote: IpAddr, names_of: &NamesOf) -> Result<(), String> {
    let remote = remote.to_canonical();
    let nowhere = names.ips.is_empty() && names.dns.is_empty();
    if nowhere || names.ips.iter().any(|ip| ip.to_canonical() == remote) {
        return Ok(());
    }
    let cure = format!(
        "issue the member's certificate for {remote} too, or for a name that it has, or give \
         --peer-skip-client-san-verification"
    );
    if names.dns.is_empty() {
        return Err(format!("{}: {cure}", names.mismatch(&remote.to_string())));
    }
    match is_named(&names.dns, remote, names_of).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{}: {cure}", strange(names, remote, ""))),
        Err(why) => Err(format!("{}: {cure}", strange(names, remote, &format!(" ({why})")))),
    }
}

fn strange(names: &Names, remote: IpAddr, why: &str) -> String {
    let remote = go::quote(remote.to_string());
    format!("tls: {remote} does not match any of DNSNames {}{why}", go::quote_all(&names.dns))
}

async fn is_named(names: &[String], remote: IpAddr, names_of: &NamesOf) -> Result<bool, String> {
    let mut failure = None;
    for name in names.iter().filter(|name| !name.starts_with("*.")) {
        match tokio::net::lookup_host((name.as_str(), 0)).await {
            Ok(mut found) => {
                if found.any(|address| address.ip().to_canonical() == remote) {
                    return Ok(true);
                }
            }
            Err(e) => failure = Some(format!("lookup {name}: {}", go::os_text(&e))),
        }
    }
    let names_of = names_of.clone();
    let reverse = tokio::task::spawn_blocking(move || names_of(remote)).await.map_err(|e| e.to_string())?;
    match reverse {
        Ok(found) if found.iter().any(|own| names.iter().any(|name| matches(name, own))) => Ok(true),
        Ok(_) => failure.map_or(Ok(false), Err),
        Err(why) => Err(why),
    }
}

/// Whether a name of a certificate, perhaps `*.domain`, is one that an address has, perhaps with a dot at its end.
fn matches(name: &str, own: &str) -> bool {
    let own = own.strip_suffix('.').unwrap_or(own);
    match name.strip_prefix('*') {
        Some(domain) if domain.starts_with('.') => own.ends_with(domain),
        _ => own == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ips: &[&str], dns: &[&str]) -> Names {
        let ips = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
        Names { common_name: String::new(), dns: dns.iter().map(|d| (*d).to_owned()).collect(), ips }
    }

    async fn check(names: Names, remote: &str, reverse: &[&'static str]) -> Result<(), String> {
        let reverse: Vec<String> = reverse.iter().map(|name| (*name).to_owned()).collect();
        let names_of: NamesOf = Arc::new(move |_| Ok(reverse.clone()));
        check_address(&names, remote.parse().expect("an address"), &names_of).await
    }

    #[tokio::test]
    async fn a_certificate_is_for_the_address_it_comes_from() {
        for (names, remote, reverse) in [
            (of(&[], &[]), "10.0.0.1", &[][..]),
            (of(&["10.0.0.1"], &[]), "10.0.0.1", &[]),
            (of(&["10.0.0.1"], &["x.invalid"]), "::ffff:10.0.0.1", &[]),
            (of(&[], &["localhost"]), "127.0.0.1", &[]),
            (of(&["10.0.0.9"], &["*.example.com"]), "10.0.0.1", &["a.b.example.com."]),
            (of(&[], &["a.invalid", "m1.example.com"]), "10.0.0.1", &["m1.example.com"]),
        ] {
            assert_eq!(check(names.clone(), remote, reverse).await, Ok(()), "{names:?} {remote}");
        }
        let refusal = check(of(&["127.0.0.1"], &[]), "10.0.0.1", &[]).await.unwrap_err();
        assert!(refusal.starts_with("x509: certificate is valid for 127.0.0.1, not 10.0.0.1: issue"), "{refusal}");
        let refusal = check(of(&[], &["*.example.com"]), "10.0.0.1", &["example.com"]).await.unwrap_err();
        let text = "tls: \"10.0.0.1\" does not match any of DNSNames [\"*.example.com\"]: issue";
        assert!(refusal.starts_with(text), "{refusal}");
    }
}

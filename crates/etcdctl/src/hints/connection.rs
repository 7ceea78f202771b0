//! Causes before the first call: no connection, or none that both sides can speak over.

use super::Asked;
use client::{Address, Cause};
use std::time::SystemTime;

/// The port that members talk to each other on: taken for the clients' by mistake.
const PEER_PORT: &str = ":2380";

/// What was found, and what to type.
pub fn hint(asked: &Asked, endpoint: &str, cause: &Cause) -> String {
    let address = Address::parse(endpoint);
    let authority = address.authority();
    let p = asked.prefix;
    match cause {
        Cause::Unresolved(why) => unresolved(authority, why),
        Cause::Refused => format!(
            "nobody listens there (connection refused); start that member, or type another address of its \
             --listen-client-urls: --endpoints=HOST:2379{}",
            peer_port(authority)
        ),
        Cause::NoSocket => {
            "there is no such socket file; type the path that the server has in --listen-client-urls".into()
        }
        Cause::Unreachable(why) => {
            format!(
                "no way leads there ({why}); mend the address or the network, or type another: --endpoints=HOST:2379"
            )
        }
        Cause::DialTimeout(waited) => format!(
            "no connection within {}: a wrong address, a firewall, or a host that is down; type another address \
             (--endpoints=HOST:2379), or for a slow network --dial-timeout=10s",
            go::format_duration(*waited)
        ),
        Cause::NotTls => format!(
            "this server speaks plain text, not TLS; type: --endpoints=http://{authority} (without --{p}cacert, --{p}cert \
             and --{p}key)"
        ),
        Cause::SpeaksTls => speaks_tls(asked, authority),
        Cause::SpeaksHttp1 => format!(
            "an HTTP server that is no etcd; type the address of an etcd member's --listen-client-urls{}",
            peer_port(authority)
        ),
        Cause::Closed => format!(
            "it closed the connection without a word: no etcd, a member's port for other members, or something before it \
             that lets nobody in; type the address of an etcd member's --listen-client-urls{}",
            peer_port(authority)
        ),
        Cause::Mute(waited) => format!(
            "it took the connection and said nothing for {}: a member that is stopped or stands still, or no etcd; look at \
             that process, or type another address: --endpoints=HOST:2379",
            go::format_duration(*waited)
        ),
        Cause::UnknownAuthority(shown) => unknown_authority(asked, shown.as_ref()),
        Cause::OutOfTime(shown) => format!(
            "{}; give the server a new one (its --cert-file and --key-file: it needs no restart)",
            out_of_time("its certificate", shown)
        ),
        Cause::WrongName { host, shown } => wrong_name(host, &shown.names),
        Cause::Alert(alert) => refused_certificate(asked, alert),
        Cause::Broken(_) => {
            "the connection broke amid the call: the member was stopped, or the network was cut; read what \
                             became of a write before you repeat it"
                .into()
        }
        Cause::Other(why) if why.contains("no system root certificates") => unknown_authority(asked, None),
        other => format!("{}; see docs/errors.md", plain(other)),
    }
}

fn plain(cause: &Cause) -> String {
    match cause {
        Cause::Other(why) => why.clone(),
        other => format!("{other:?}"),
    }
}

fn peer_port(authority: &str) -> &'static str {
    match authority.ends_with(PEER_PORT) {
        true => " (2380 is for members among themselves, clients have 2379)",
        false => "",
    }
}

fn unresolved(authority: &str, why: &str) -> String {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.is_empty() => {
            format!(
                "the name {host} has no address ({why}); mend the name or DNS, or type an address: --endpoints=ADDRESS:{port}"
            )
        }
        _ => format!("no host and port ({why}); type: --endpoints={authority}:2379"),
    }
}

fn speaks_tls(asked: &Asked, authority: &str) -> String {
    let p = asked.prefix;
    let ca = asked.own_file(|tls| &tls.trusted_ca).unwrap_or_else(|| "FILE".into());
    format!("this server speaks TLS, not plain text; type: --endpoints=https://{authority} --{p}cacert={ca}")
}

fn unknown_authority(asked: &Asked, shown: Option<&tls::Shown>) -> String {
    let p = asked.prefix;
    let issuer = shown.map(|shown| shown.issuer.as_str()).filter(|issuer| !issuer.is_empty());
    let issuer = issuer.map_or("somebody".to_owned(), go::quote);
    match asked.own_file(|tls| &tls.trusted_ca) {
        Some(file) => format!(
            "its certificate is signed by {issuer}, who is not in {file}; type --{p}cacert=FILE with the certificate of who \
             signed it (the CA of the server's --cert-file)"
        ),
        None => format!(
            "its certificate is signed by {issuer}, whom this system does not know; type --{p}cacert=FILE with the \
             certificate of who signed it (the CA of the server's --cert-file)"
        ),
    }
}

/// `its certificate ended 3 days ago, at …`.
fn out_of_time(whose: &str, shown: &tls::Shown) -> String {
    let now = SystemTime::now();
    match now.duration_since(shown.not_after) {
        Ok(past) => {
            let days = past.as_secs() / 86_400;
            format!(
                "{whose} ended {days} days ago, at {} (it began at {})",
                tls::time(shown.not_after),
                tls::time(shown.not_before)
            )
        }
        Err(_) => format!(
            "{whose} counts from {} on only, and it is {} here: a clock may be wrong",
            tls::time(shown.not_before),
            tls::time(now)
        ),
    }
}

fn wrong_name(host: &str, names: &tls::Names) -> String {
    let mut all = names.dns.clone();
    all.extend(names.ips.iter().map(ToString::to_string));
    let (valid, typed) = match all.first() {
        None => ("nobody (it has no names)".to_owned(), String::new()),
        Some(first) => (all.join(", "), format!("type one of them (--endpoints=https://{first}:PORT), or ")),
    };
    format!("its certificate is for {valid}, not for {host}; {typed}give the server one with {host} among its names")
}

/// The server did not like what we showed, or that we showed nothing.
fn refused_certificate(asked: &Asked, alert: &str) -> String {
    let p = asked.prefix;
    let Some(file) = asked.own_file(|tls| &tls.cert) else {
        return format!(
            "it wants a client certificate ({alert}); type --{p}cert=FILE --{p}key=FILE of one that its --trusted-ca-file \
             has signed"
        );
    };
    let Ok(shown) = tls::shown_by(&file) else {
        return format!("it refused the certificate of {file} ({alert}); type --{p}cert=FILE --{p}key=FILE of another");
    };
    let now = SystemTime::now();
    let (whose, issuer) = (format!("it refused the certificate of {file}, which"), go::quote(&shown.issuer));
    if now > shown.not_after || now < shown.not_before {
        return format!("{} ({alert}); type --{p}cert=FILE --{p}key=FILE of a new one", out_of_time(&whose, &shown));
    }
    format!(
        "{whose} {issuer} has signed ({alert}): the server's --trusted-ca-file does not have {issuer}, or its \
         --client-cert-allowed-hostname, --client-crl-file or the certificate's own uses forbid it; type --{p}cert=FILE \
         --{p}key=FILE of another"
    )
}

//! Lists of peer URLs, checked as Go's `types.NewURLs` checks them.

use go::quote;

/// Checks every URL: a known scheme, `host:port`, no path.
///
/// # Errors
/// etcd's text for the first wrong one.
pub fn check(urls: &[String]) -> Result<(), String> {
    if urls.is_empty() {
        return Err("no valid URLs given".into());
    }
    urls.iter().try_for_each(|url| check_one(url.trim()))
}

/// The checked URLs as Go prints them (no blanks around, the scheme in lower case), sorted.
///
/// # Errors
/// As [`check`].
pub fn sorted(urls: &[String]) -> Result<Vec<String>, String> {
    check(urls)?;
    let mut sorted: Vec<String> = urls.iter().map(|url| plain(url.trim())).collect();
    sorted.sort();
    Ok(sorted)
}

fn plain(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => format!("{}://{rest}", scheme.to_ascii_lowercase()),
        None => url.to_owned(),
    }
}

fn check_one(url: &str) -> Result<(), String> {
    if url.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(format!("parse {}: net/url: invalid control character in URL", quote(url.as_bytes())));
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    match scheme.to_ascii_lowercase().as_str() {
        "unix" | "unixs" => return Ok(()),
        "http" | "https" => {}
        _ if url.starts_with(':') => {
            return Err(format!("parse {}: missing protocol scheme", quote(url.as_bytes())));
        }
        _ if scheme.is_empty() && url.contains(':') && !url.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            let text = "first path segment in URL cannot contain colon";
            return Err(format!("parse {}: {text}", quote(url.as_bytes())));
        }
        _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {url}")),
    }
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let port = match host.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((_, after)) => after.strip_prefix(':'),
            None => return Err(format!("parse {}: missing ']' in host", quote(url.as_bytes()))),
        },
        None => host.rsplit_once(':').map(|(_, port)| port),
    };
    match port {
        None => Err(format!("URL address does not have the form \"host:port\": {url}")),
        Some(port) if !port.bytes().all(|b| b.is_ascii_digit()) => Err(format!(
            "parse {}: invalid port {} after host",
            quote(url.as_bytes()),
            quote(format!(":{port}").as_bytes())
        )),
        Some(_) if !path.is_empty() => Err(format!("URL must not contain a path: {url}")),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check_one;

    #[test]
    fn bad_urls_are_refused_with_etcds_texts() {
        for (url, text) in [
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("localhost:80", "URL scheme must be http, https, unix, or unixs: localhost:80"),
            ("127.0.0.1:80", "parse \"127.0.0.1:80\": first path segment in URL cannot contain colon"),
            ("http://1.2.3.4", "URL address does not have the form \"host:port\": http://1.2.3.4"),
            ("http://1.2.3.4:1/a", "URL must not contain a path: http://1.2.3.4:1/a"),
            ("http://a:b", "parse \"http://a:b\": invalid port \":b\" after host"),
            ("http://[::1:1", "parse \"http://[::1:1\": missing ']' in host"),
        ] {
            assert_eq!(check_one(url).unwrap_err(), text, "{url}");
        }
        assert!(check_one("http://[::1]:1").is_ok() && check_one("unix:///a").is_ok());
    }
}

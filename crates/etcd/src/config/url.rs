//! The URLs that members listen on and advertise, with the checks and error texts of etcd's `types.NewURLs`.

use go::quote;
use std::fmt;

/// How a URL is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

/// One endpoint of a member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// The URL as it was written, without surrounding blanks: members compare and hash these texts.
    text: String,
    pub scheme: Scheme,
    /// Host name or address, without the brackets of IPv6. May be empty.
    pub host: String,
    /// 0: any free port (or none given, for a socket file, or one that [`has_port`](Url::has_port) denies).
    pub port: u16,
    /// What follows the authority; empty for http and https.
    pub path: String,
    authority: String,
}

impl Url {
    /// Parses one URL.
    ///
    /// # Errors
    /// etcd's text.
    pub fn parse(text: &str) -> Result<Url, String> {
        let text = text.trim();
        let parts = split(text).map_err(|why| format!("parse {}: {why}", quote(text)))?;
        let scheme = match parts.scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
        };
        let authority = parts.authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = split_host_port(authority);
        if matches!(scheme, Scheme::Http | Scheme::Https) {
            if port.is_none() {
                return Err(format!("URL address does not have the form \"host:port\": {text}"));
            }
            if !parts.path.is_empty() {
                return Err(format!("URL must not contain a path: {text}"));
            }
        }
        let port = match port {
            None | Some("") => 0,
            // Only listening needs a port that exists.
            Some(digits) => digits.parse().unwrap_or(0),
        };
        Ok(Url {
            text: text.to_owned(),
            scheme,
            host: host.to_owned(),
            port,
            path: parts.path.to_owned(),
            authority: authority.to_owned(),
        })
    }

    /// Parses a comma separated list: sorted, without duplicates.
    ///
    /// # Errors
    /// The text for the first bad URL.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
        let mut urls = text.split(',').map(Url::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// The URL as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `host:port`, as it stands in the URL.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether the number after the host, if any, is one that a port can have.
    pub fn has_port(&self) -> bool {
        self.port_text().is_none_or(|digits| digits.is_empty() || digits.parse::<u16>().is_ok())
    }

    /// What stands after the host.
    pub fn port_text(&self) -> Option<&str> {
        split_host_port(&self.authority).1
    }

    /// The scheme as Go's `url.Parse` has it.
    pub fn scheme_text(&self) -> &'static str {
        match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Unix => "unix",
            Scheme::Unixs => "unixs",
        }
    }

    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Unixs)
    }

    /// The socket file of a unix URL (`unix://localhost:20000` is the file `localhost:20000` in the working directory).
    pub fn socket_path(&self) -> Option<String> {
        matches!(self.scheme, Scheme::Unix | Scheme::Unixs).then(|| format!("{}{}", self.authority, self.path))
    }

    /// The same URL with another host.
    pub fn with_host(&self, host: &str) -> Url {
        let authority =
            if host.contains(':') { format!("[{host}]:{}", self.port) } else { format!("{host}:{}", self.port) };
        let scheme = self.text.split(':').next().unwrap_or_default();
        let text = format!("{scheme}://{authority}{}", self.path);
        Url { text, host: host.to_owned(), authority, path: self.path.clone(), ..*self }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The URLs as one flag would have them.
pub fn joined(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

struct Parts<'a> {
    scheme: &'a str,
    authority: &'a str,
    path: &'a str,
}

/// The part of Go's `url.Parse` that member URLs meet.
fn split(text: &str) -> Result<Parts<'_>, String> {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    let bare = text.split('#').next().unwrap_or_default();
    let (scheme, rest) = split_scheme(bare)?;
    let rest = rest.split('?').next().unwrap_or_default();
    let Some(after) = rest.strip_prefix("//") else {
        if scheme.is_empty() && rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
            return Err("first path segment in URL cannot contain colon".into());
        }
        return Ok(Parts { scheme, authority: "", path: rest });
    };
    let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
    check_authority(authority.rsplit('@').next().unwrap_or_default())?;
    Ok(Parts { scheme, authority, path })
}

fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    for (i, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if i > 0 => {}
            ':' if i == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((&text[..i], &text[i + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn check_authority(authority: &str) -> Result<(), String> {
    let port = if authority.starts_with('[') {
        let end = authority.rfind(']').ok_or("missing ']' in host")?;
        &authority[end + 1..]
    } else {
        authority.find(':').map_or("", |colon| &authority[colon..])
    };
    if let Some(c) = authority.chars().find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}'))
    {
        return Err(format!("invalid character {} in host name", quote(c.to_string())));
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
        _ => Err(format!("invalid port {} after host", quote(port))),
    }
}

fn split_host_port(authority: &str) -> (&str, Option<&str>) {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_at(rest.find(']').unwrap_or(rest.len()));
        return (host, after.strip_prefix("]:"));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_good_urls() {
        let u = Url::parse(" http://127.0.0.1:2379 ").unwrap();
        assert_eq!(
            (u.scheme, u.host.as_str(), u.port, u.as_str()),
            (Scheme::Http, "127.0.0.1", 2379, "http://127.0.0.1:2379")
        );
        let u = Url::parse("https://[::1]:0").unwrap();
        assert_eq!((u.host.as_str(), u.port, u.is_tls(), u.authority()), ("::1", 0, true, "[::1]:0"));
        assert_eq!(Url::parse("http://u@127.0.0.1:1").unwrap().host, "127.0.0.1");
        assert_eq!(Url::parse("http://127.0.0.1:1?").unwrap().as_str(), "http://127.0.0.1:1?");
        assert_eq!(Url::parse("http://:80").unwrap().host, "");
        let u = Url::parse("http://127.0.0.1:99999").unwrap();
        assert_eq!((u.has_port(), u.port_text(), u.as_str()), (false, Some("99999"), "http://127.0.0.1:99999"));
        assert!(Url::parse("http://a:0").unwrap().has_port() && Url::parse("http://a:").unwrap().has_port());
    }

    #[test]
    fn socket_files_of_unix_urls() {
        for (url, path) in [
            ("unix://localhost:20000", "localhost:20000"),
            ("unix://etcd.unix:1", "etcd.unix:1"),
            ("unix:///abs/sock", "/abs/sock"),
            ("unix:/a/b", "/a/b"),
            ("unixs://a", "a"),
            ("unix://a:1/b", "a:1/b"),
        ] {
            assert_eq!(Url::parse(url).unwrap().socket_path().as_deref(), Some(path), "{url}");
        }
        assert_eq!(Url::parse("http://a:1").unwrap().socket_path(), None);
    }

    #[test]
    fn bad_urls_are_refused_with_etcds_texts() {
        for (url, text) in [
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("ftp://1.2.3.4:1", "URL scheme must be http, https, unix, or unixs: ftp://1.2.3.4:1"),
            ("localhost:80", "URL scheme must be http, https, unix, or unixs: localhost:80"),
            ("http://1.2.3.4", "URL address does not have the form \"host:port\": http://1.2.3.4"),
            ("http://[::1]", "URL address does not have the form \"host:port\": http://[::1]"),
            ("http://1.2.3.4:1/a", "URL must not contain a path: http://1.2.3.4:1/a"),
            ("http://[::1:1", "parse \"http://[::1:1\": missing ']' in host"),
            ("http://127.0.0.1:a", "parse \"http://127.0.0.1:a\": invalid port \":a\" after host"),
            (":80", "parse \":80\": missing protocol scheme"),
            ("127.0.0.1:80", "parse \"127.0.0.1:80\": first path segment in URL cannot contain colon"),
        ] {
            assert_eq!(Url::parse(url).unwrap_err(), text, "{url}");
        }
    }

    #[test]
    fn lists_are_sorted_and_unique() {
        let urls = Url::parse_list("http://b:1,http://a:2,http://b:1").unwrap();
        assert_eq!(urls.iter().map(Url::as_str).collect::<Vec<_>>(), ["http://a:2", "http://b:1"]);
    }

    #[test]
    fn another_host_keeps_port_and_scheme() {
        assert_eq!(Url::parse("http://localhost:2380").unwrap().with_host("10.0.0.7").as_str(), "http://10.0.0.7:2380");
        assert_eq!(Url::parse("https://localhost:2380").unwrap().with_host("::2").as_str(), "https://[::2]:2380");
    }
}

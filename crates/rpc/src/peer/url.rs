//! Where a peer listens, and which of its URLs is tried next (etcd `types.NewURLs`, rafthttp `urlpick.go`).

use parking_lot::Mutex;
use std::fmt;

/// A peer URL: `http`, `https`, `unix` or `unixs`, a host and a port, no path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    pub scheme: Scheme,
    /// `host:port`; a unix scheme has the socket's file here.
    pub host: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

impl Scheme {
    const ALL: [(&'static str, Scheme); 4] =
        [("http", Scheme::Http), ("https", Scheme::Https), ("unix", Scheme::Unix), ("unixs", Scheme::Unixs)];

    fn text(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Unix => "unix",
            Scheme::Unixs => "unixs",
        }
    }

    /// Whether bytes on the way are encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Unixs)
    }
}

impl Url {
    /// # Errors
    /// Not of that form; the text is etcd's.
    pub fn parse(text: &str) -> Result<Url, String> {
        let text = text.trim();
        // `unix:file` is the same as `unix://file`.
        let opaque = text.split_once(':').filter(|(scheme, _)| scheme.to_ascii_lowercase().starts_with("unix"));
        let (scheme, host) = text.split_once("://").or(opaque).unwrap_or(("", text));
        let Some((_, scheme)) = Scheme::ALL.into_iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name)) else {
            return Err(format!("URL scheme must be http, https, unix, or unixs: {text}"));
        };
        let url = Url { scheme, host: host.to_owned() };
        if matches!(scheme, Scheme::Unix | Scheme::Unixs) {
            return Ok(url);
        }
        if host.contains(['/', '?', '#']) {
            return Err(format!("URL must not contain a path: {text}"));
        }
        match url.address() {
            Some((name, _)) if name.bytes().all(|b| b.is_ascii_graphic() && b != b'@') => Ok(url),
            _ => Err(format!(r#"URL address does not have the form "host:port": {text}"#)),
        }
    }

    /// A list that is not empty, sorted as etcd sorts it.
    ///
    /// # Errors
    /// One of them is none, or there is none.
    pub fn parse_list<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Url>, String> {
        let mut urls = texts.into_iter().map(Url::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort_by_key(Url::to_string);
        if urls.is_empty() { Err("no valid URLs given".to_owned()) } else { Ok(urls) }
    }

    /// Host without brackets, and port.
    pub fn address(&self) -> Option<(&str, u16)> {
        let (host, port) = self.host.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        Some((host, port.parse().ok()?))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.text(), self.host)
    }
}

/// A peer's URLs and the one in use. Which one works is found out by all that talk to the peer together.
#[derive(Debug)]
pub(crate) struct Picker(Mutex<(Vec<Url>, usize)>);

impl Picker {
    /// `urls` is not empty.
    pub fn new(urls: Vec<Url>) -> Picker {
        assert!(!urls.is_empty(), "a peer has a URL");
        Picker(Mutex::new((urls, 0)))
    }

    pub fn pick(&self) -> Url {
        let of = self.0.lock();
        of.0[of.1].clone()
    }

    /// The one that follows `url`, without a change to the one in use.
    pub fn after(&self, url: &Url) -> Url {
        let (urls, picked) = &*self.0.lock();
        let at = urls.iter().position(|u| u == url).map_or(*picked, |at| at + 1);
        urls[at % urls.len()].clone()
    }

    /// The next one, if `url` is still the one in use.
    pub fn unreachable(&self, url: &Url) {
        let (urls, picked) = &mut *self.0.lock();
        if urls[*picked] == *url {
            *picked = (*picked + 1) % urls.len();
        }
    }

    pub fn update(&self, urls: Vec<Url>) {
        assert!(!urls.is_empty(), "a peer has a URL");
        *self.0.lock() = (urls, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_as_etcd_does() {
        for (text, address) in [
            ("http://127.0.0.1:2380", Some(("127.0.0.1", 2380))),
            (" https://a.b.c:1 ", Some(("a.b.c", 1))),
            ("http://[::1]:2380", Some(("::1", 2380))),
            ("unix://x:2", Some(("x", 2))),
            ("unix://file", None),
            ("unix:///run/file", None),
        ] {
            assert_eq!(Url::parse(text).unwrap().address(), address, "{text}");
            assert_eq!(Url::parse(text).unwrap().to_string(), text.trim());
        }
        assert_eq!(Url::parse("unix:file").unwrap(), Url::parse("unix://file").unwrap());
        for bad in ["", "a:1", "ftp://a:1", "http://a", "http://a:1/", "http://a:1/x", "http://a:b", "http://::1:1"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        assert!(Url::parse("http://a b:1").is_err() && Url::parse("http://a\r\n:1").is_err());
        assert!(Url::parse_list([]).is_err());
    }

    #[test]
    fn only_the_url_in_use_can_fail() {
        let urls = Url::parse_list(["http://b:1", "http://a:1"]).unwrap();
        let picker = Picker::new(urls.clone());
        assert_eq!(picker.pick().host, "a:1");
        picker.unreachable(&urls[1]);
        assert_eq!(picker.pick().host, "a:1");
        picker.unreachable(&urls[0]);
        picker.unreachable(&urls[0]);
        assert_eq!(picker.pick().host, "b:1");
        picker.unreachable(&urls[1]);
        assert_eq!(picker.pick().host, "a:1");
    }
}

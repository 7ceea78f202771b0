//! Versions that etcd shows to the world.

/// The etcd version this build speaks: status, `/version`, `--version` and metrics agree on it.
pub const SERVER: &str = "3.7.1";
/// The cluster version a cluster of only such servers decides on (major.minor.0).
pub const CLUSTER: &str = "3.7.0";
/// The lowest cluster version this server can talk to.
pub const MIN_CLUSTER: &str = "3.0.0";
/// The data schema this build writes (`meta/storageVersion`).
pub const STORAGE: &str = "3.7.0";
/// This project's own version.
pub const OXETCD: &str = env!("CARGO_PKG_VERSION");

/// A `major.minor.patch` version as etcd prints and compares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u64,
    pub minor: u64,
    pub patch: u64,
}

impl Version {
    /// Parses `x.y.z` or `x.y`; any pre-release suffix after `-` or `+` is dropped.
    pub fn parse(text: &str) -> Option<Version> {
        let core = text.split(['-', '+']).next()?;
        let mut parts = core.split('.').map(|p| p.parse::<u64>().ok());
        let (major, minor) = (parts.next()??, parts.next()??);
        let patch = parts.next().unwrap_or(Some(0))?;
        parts.next().is_none().then_some(Version { major, minor, patch })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_parse_as_semver_does() {
        assert_eq!(Version::parse("3.7.1").unwrap().to_string(), "3.7.1");
        assert_eq!(Version::parse("3.6").unwrap().to_string(), "3.6.0");
        assert_eq!(Version::parse("3.7.0-rc.1").unwrap().to_string(), "3.7.0");
        assert!(
            Version::parse("3").is_none() && Version::parse("a.b").is_none() && Version::parse("1.2.3.4").is_none()
        );
    }
}

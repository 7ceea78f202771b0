//! Processors: by the names that Go has for them, and which of them etcd is supported on.

use crate::logging::{Level, Note};

/// Where etcd runs without being told to (etcd `checkSupportArch`).
const SUPPORTED: [&str; 4] = ["amd64", "arm64", "ppc64le", "s390x"];

/// This machine's kind, as Go names it.
pub fn here() -> &'static str {
    go_name(std::env::consts::ARCH, cfg!(target_endian = "little"))
}

fn go_name(arch: &'static str, little_endian: bool) -> &'static str {
    match (arch, little_endian) {
        ("x86_64", _) => "amd64",
        ("aarch64", _) => "arm64",
        ("x86", _) => "386",
        ("powerpc64", true) => "ppc64le",
        ("powerpc64", false) => "ppc64",
        ("loongarch64", _) => "loong64",
        (other, _) => other,
    }
}

/// Whether etcd runs on `arch`: at once, with a word about it where `ETCD_UNSUPPORTED_ARCH` says so, or not.
///
/// # Errors
/// The line that tells why not.
pub fn check(arch: &str, variable: Option<&str>) -> Result<Option<Note>, Note> {
    if SUPPORTED.contains(&arch) {
        return Ok(None);
    }
    if variable == Some(arch) {
        let text = "running etcd on unsupported architecture since ETCD_UNSUPPORTED_ARCH is set";
        return Ok(Some(Note::new(Level::Info, text).text("arch", arch)));
    }
    let text = "Refusing to run etcd on unsupported architecture since ETCD_UNSUPPORTED_ARCH is not set";
    Err(Note::new(Level::Error, text).text("arch", arch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_processor_has_to_be_asked_for_by_its_name() {
        for arch in SUPPORTED {
            assert_eq!(check(arch, None), Ok(None));
        }
        let told = check("riscv64", Some("riscv64")).unwrap().unwrap();
        assert!(told.message.starts_with("running etcd on unsupported architecture"));
        for variable in [None, Some("arm"), Some("")] {
            let refused = check("riscv64", variable).unwrap_err();
            assert!(refused.message.starts_with("Refusing to run etcd"), "{variable:?}");
        }
    }

    #[test]
    fn processors_have_gos_names() {
        assert_eq!(go_name("x86_64", true), "amd64");
        assert_eq!(go_name("powerpc64", true), "ppc64le");
        assert_eq!(go_name("powerpc64", false), "ppc64");
        assert_eq!(go_name("riscv64", true), "riscv64");
    }
}

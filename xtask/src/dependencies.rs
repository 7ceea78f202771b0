//! What may stand in Cargo.lock: licences that go with Apache-2.0, sources that can be rebuilt, no banned crates.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// Permissive licences whose terms NOTICE and the source archive meet.
const LICENCES: [&str; 8] = ["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "Unicode-3.0", "Zlib"];
/// Not here, and why.
const BANNED: [(&str, &str); 4] = [
    ("openssl", "rustls is the one TLS library"),
    ("openssl-sys", "rustls is the one TLS library"),
    ("raft", "the consensus core is ours (docs/decisions/0001); tests may compare with it"),
    ("serde_yaml", "unmaintained; serde-saphyr"),
];
/// Banned from everything that is built, but not from tests.
const ORACLES: [&str; 1] = ["raft"];

/// Fails with all that is wrong.
pub fn check() -> Result<(), Box<dyn std::error::Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(["metadata", "--format-version", "1", "--locked"]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata without packages")?;
    let built = built(&metadata);
    let wrong: Vec<String> = packages.iter().filter_map(|p| verdict(p, &built).err()).collect();
    if wrong.is_empty() {
        println!("{} packages: licences, sources and bans are in order", packages.len());
        return Ok(());
    }
    Err(wrong.join("\n").into())
}

/// Ids of the packages that binaries are made of or with: all that is reached without dev-dependencies.
fn built(metadata: &Value) -> BTreeSet<&str> {
    let nodes = metadata["resolve"]["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let members = metadata["workspace_members"].as_array().map_or(&[][..], Vec::as_slice);
    let mut next: Vec<&str> = members.iter().filter_map(Value::as_str).collect();
    let mut built = BTreeSet::new();
    while let Some(id) = next.pop() {
        if built.insert(id) {
            let node = nodes.iter().find(|n| n["id"] == id);
            let deps = node.and_then(|n| n["deps"].as_array()).map_or(&[][..], Vec::as_slice);
            next.extend(deps.iter().filter(|d| !only_for_tests(d)).filter_map(|d| d["pkg"].as_str()));
        }
    }
    built
}

fn only_for_tests(dependency: &Value) -> bool {
    let kinds = dependency["dep_kinds"].as_array().map_or(&[][..], Vec::as_slice);
    !kinds.is_empty() && kinds.iter().all(|k| k["kind"] == "dev")
}

fn verdict(package: &Value, built: &BTreeSet<&str>) -> Result<(), String> {
    let name = package["name"].as_str().unwrap_or_default();
    let shown = format!("{name} {}", package["version"].as_str().unwrap_or_default());
    let source = package["source"].as_str();
    if source.is_some_and(|s| !s.starts_with("registry+")) {
        return Err(format!("{shown}: comes from {}, not from the registry", source.unwrap_or_default()));
    }
    // Our own crates carry no source.
    let compared_with = ORACLES.contains(&name) && !package["id"].as_str().is_some_and(|id| built.contains(id));
    let banned = BANNED.iter().find(|(banned, _)| *banned == name);
    if let Some((_, why)) = banned.filter(|_| source.is_some() && !compared_with) {
        return Err(format!("{shown}: banned: {why}"));
    }
    let licence = package["license"].as_str().ok_or_else(|| format!("{shown}: names no licence"))?;
    let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX)
        .map_err(|e| format!("{shown}: its licence {licence:?} can't be read: {e}"))?;
    let fine = expression.evaluate(|wanted| wanted.license.id().is_some_and(|id| LICENCES.contains(&id.name)));
    if fine { Ok(()) } else { Err(format!("{shown}: licence {licence}")) }
}

//! docs/TESTING.md names what there is.

use std::path::Path;

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether a test of this name is in the file.
fn has_test(root: &Path, file: &str, name: &str) -> bool {
    let path = root.join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.contains(&format!("fn {name}("))
}

/// One row's place: a scenario, a mutant, functions of a file, or words that name none.
fn check(root: &Path, place: &str) {
    if let Some(mutant) = place.trim().strip_prefix("mutant ") {
        let name = quoted(mutant).next().expect("a mutant has a name");
        let list = std::fs::read_to_string(root.join("crates/failpoint/src/mutant.rs")).expect("it is there");
        assert!(list.contains(&format!("\"{name}\"")), "there is no mutant {name}");
    } else if let Some(scenario) = place.trim().strip_prefix("scenario ") {
        let name = quoted(scenario).next().expect("a scenario has a name");
        assert!(sim::cluster::SCENARIOS.iter().any(|s| s.name == name), "there is no scenario {name}");
    } else if let Some((tests, file)) = place.split_once(" in `") {
        let file = file.trim_end().trim_end_matches('`');
        quoted(tests).for_each(|name| assert!(has_test(root, file, name), "{file} has no test {name}"));
    }
}

/// The last column of a row.
fn check_places(root: &Path, row: &str) {
    let places = row.trim_end_matches('|').rsplit('|').next().expect("a row has columns");
    places.split(';').for_each(|place| check(root, place));
}

#[test]
fn each_fault_that_seeds_found_is_kept_away() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("docs/TESTING.md")).unwrap();
    let (_, after) = text.split_once("### What seeds found").expect("it has its section");
    let section = after.split_once("\n### ").expect("others follow").0;
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert!(rows.len() > 9, "{rows:?}");
    rows.into_iter().for_each(|row| check_places(&root, row));
}

#[test]
fn each_known_bug_has_its_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("docs/TESTING.md")).unwrap();
    for n in 1..=27 {
        let start = format!("| T{n} |");
        let row = text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("T{n} has no row"));
        check_places(&root, row);
    }
    for scenario in sim::cluster::SCENARIOS {
        assert!(text.contains(&format!("`{}`", scenario.name)), "{} has no row", scenario.name);
    }
}

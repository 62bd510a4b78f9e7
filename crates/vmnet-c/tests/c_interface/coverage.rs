//! Every name of the API has tests, and a row in `docs/api-coverage.md`, which `scripts/api-coverage` writes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

struct Row {
    name: String,
    tests: Vec<String>,
}

fn rows() -> Vec<Row> {
    let list = fs::read_to_string(here().join("abi/coverage")).expect("the list");
    let row = |line: &str| {
        let mut fields = line.split('|').map(str::trim);
        let (_page, name, tests) = (fields.next(), fields.next(), fields.next());
        Row {
            name: name.expect("a name").to_owned(),
            tests: tests
                .expect("tests")
                .split(", ")
                .map(str::to_owned)
                .collect(),
        }
    };
    list.lines()
        .filter(|line| !line.starts_with('#'))
        .map(row)
        .collect()
}

#[test]
fn every_name_of_the_header_has_a_row() {
    let names = fs::read_to_string(here().join("abi/names")).expect("the names");
    let rows = rows();
    let named: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let missing: Vec<&str> = names
        .lines()
        .filter(|name| !name.starts_with('#') && !named.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_row_names_tests_that_there_are() {
    let mut missing = BTreeSet::new();
    for test in rows().iter().flat_map(|row| &row.tests) {
        let (source, function) = match test.split_once(' ') {
            None => {
                let (module, function) = test.split_once("::").expect("a module");
                (format!("tests/c_interface/{module}.rs"), function)
            }
            Some((package, test)) => {
                let (module, function) = test.split_once("::tests::").expect("tests of a module");
                (format!("../{package}/src/{module}.rs"), function)
            }
        };
        let text = fs::read_to_string(here().join(&source)).unwrap_or_default();
        if !text.contains(&format!("fn {function}()")) {
            missing.insert(test.clone());
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_row_is_in_the_documentation() {
    let page = fs::read_to_string(here().join("../../docs/api-coverage.md")).expect("the page");
    let shown: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .map(|name| name.replace('`', ""))
        .collect();
    let missing: Vec<String> = rows()
        .iter()
        .map(|row| row.name.replace('`', ""))
        .filter(|name| !shown.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}: run scripts/api-coverage");
    assert!(!page.contains("**fail**"), "a row has failed");
}

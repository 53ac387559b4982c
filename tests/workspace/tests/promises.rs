//! What `SECURITY.md` and `SPECIFICATION.md` promise names the test that shows it, and that test exists.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use stowage_workspace_tests::pages::root;

/// Every function of the workspace's sources, so every test and every scenario of the real cluster among them.
fn functions() -> BTreeSet<String> {
    let mut open = vec![root()];
    let mut found = BTreeSet::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let names =
                    text.lines().filter_map(|line| line.split_once("fn ")?.1.split(['(', '<']).next());
                found.extend(names.map(str::to_owned));
            }
        }
    }
    found
}

/// What stands between backquotes and is a sentence in snake case: a test's name. Metrics look alike but for their prefix.
fn named(page: &str) -> BTreeSet<String> {
    let is_test = |text: &&str| {
        let words = text.split('_').count();
        let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        words >= 4 && text.chars().all(snake) && !text.starts_with("stowage_")
    };
    page.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(is_test)
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn check(page: &str, least: usize) {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let (named, there) = (named(&text), functions());
    assert!(named.len() >= least, "{page} names only {} tests", named.len());
    let gone: Vec<_> = named.difference(&there).collect();
    assert!(gone.is_empty(), "{page} names tests that there are not: {gone:?}");
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    check("SECURITY.md", 30);
}

#[test]
fn every_test_that_the_specification_names_exists() {
    check("SPECIFICATION.md", 50);
}

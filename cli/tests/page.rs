//! The pages about `kubectl stowage` show what it says: their transcripts are the golden files.
#![allow(clippy::unwrap_used)]

use std::path::Path;

/// `<!-- golden/NAME -->` stands before each transcript: a command, then what it says.
#[track_caller]
fn check(page: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../docs").join(page);
    let page = std::fs::read_to_string(&path).unwrap();
    let mut parts = page.split("<!-- golden/");
    let mut fresh = parts.next().unwrap().to_owned();
    for part in parts {
        let (name, rest) = part.split_once(" -->\n```text\n").unwrap();
        let (block, after) = rest.split_once("```\n").unwrap();
        let command = block.lines().next().unwrap();
        assert!(command.starts_with("$ kubectl stowage "), "{command}");
        let said = std::fs::read_to_string(root.join("tests/golden").join(name)).unwrap();
        fresh += &format!("<!-- golden/{name} -->\n```text\n{command}\n{said}```\n{after}");
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == fresh, "docs/{page} is not what is said now");
}

#[test]
fn the_page_of_the_commands_shows_what_is_said() {
    check("kubectl-stowage.md");
}

#[test]
fn the_page_of_the_policies_shows_what_is_said() {
    check("policies.md");
}

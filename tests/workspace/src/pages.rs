//! The pages in `docs/`, and the tables in them that are made by `cargo xtask generate`.
#![expect(clippy::missing_panics_doc, reason = "panicking is how a test says what is wrong")]

use std::path::{Path, PathBuf};

/// The workspace's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where a page lies.
pub fn path(page: &str) -> PathBuf {
    root().join("docs").join(page)
}

/// Its text.
pub fn page(page: &str) -> String {
    std::fs::read_to_string(path(page)).unwrap_or_else(|error| panic!("docs/{page}: {error}"))
}

/// Writes the page whole, so that no other test reads half of it.
fn write(page: &str, text: &str) {
    let new = path(page).with_extension("new");
    std::fs::write(&new, text).expect("a page can be written");
    std::fs::rename(new, path(page)).expect("a page can be renamed");
}

/// Compares what stands between the two marks of that name with what should; writes it where it is asked to.
#[track_caller]
pub fn is_fresh(name: &str, mark: &str, table: &str) {
    let text = page(name);
    let (begin, end) =
        (format!("<!-- {mark}: made by `cargo xtask generate` -->\n"), format!("<!-- end of {mark} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{name} has no mark {begin}"));
    let (committed, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{name} has no mark {end}"));
    let fresh = format!("\n{table}\n\n");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        // Another test may write another table of the same page.
        static WRITING: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _writing = WRITING.lock().expect("nobody panicked while writing");
        let now = page(name);
        let old = format!("{begin}{committed}{end}");
        assert!(now.contains(&old));
        write(name, &now.replace(&old, &format!("{begin}{fresh}{end}")));
        return;
    }
    assert!(
        !before.is_empty() && !after.is_empty() && committed == fresh,
        "docs/{name} is stale: run `cargo xtask generate`"
    );
}

/// Text as code; nothing where there is none.
pub fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

/// Text as it may stand in a cell.
pub fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

//! The page's own files, in the binary: a cluster without internet has all of it, and no file can differ from the program.

/// One file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asset {
    /// Its path in URLs.
    pub(super) path: &'static str,
    /// Its `Content-Type`.
    pub(super) kind: &'static str,
    /// What it says.
    pub(super) text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($path:literal $kind:ident $file:literal),* $(,)?) => {
        /// All of them.
        pub(super) const ASSETS: &[Asset] =
            &[$(Asset { path: $path, kind: $kind, text: include_str!(concat!("../../page/", $file)) }),*];
    };
}

assets! {
    "/" HTML "index.html",
    "/map.css" CSS "map.css",
    "/main.js" JS "main.js",
    "/cells.js" JS "cells.js",
    "/details.js" JS "details.js",
    "/dom.js" JS "dom.js",
    "/filter.js" JS "filter.js",
    "/list.js" JS "list.js",
    "/model.js" JS "model.js",
    "/stream.js" JS "stream.js",
    "/summary.js" JS "summary.js",
    "/try.js" JS "try.js",
    "/waiting.js" JS "waiting.js",
}

/// The file of a path.
pub(super) fn asset(path: &str) -> Option<Asset> {
    ASSETS.iter().find(|asset| asset.path == path).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
        let files = std::fs::read_dir(folder).unwrap();
        let files: BTreeSet<String> =
            files.map(|entry| format!("/{}", entry.unwrap().file_name().to_string_lossy())).collect();
        let file = |asset: &Asset| if asset.path == "/" { "/index.html" } else { asset.path }.to_owned();
        let served: BTreeSet<String> = ASSETS.iter().map(file).collect();
        assert_eq!(files, served);
    }

    /// What a content security policy forbids, and what would need another server.
    #[test]
    fn the_page_has_no_inline_code_and_nothing_from_elsewhere() {
        for Asset { path, text, .. } in ASSETS {
            for no in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=",
                "onclick=",
            ] {
                assert!(!text.contains(no), "{path} has {no}");
            }
            for link in text.split("://").skip(1) {
                assert!(link.starts_with("www.w3.org/2000/svg"), "{path} names another server: {link:.40}");
            }
        }
    }
}

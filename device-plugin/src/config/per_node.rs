//! A configuration for each node, chosen by a label of the Node: NVIDIA's `config-manager`, inside the plugin.
//!
//! A folder holds configuration files, such as a ConfigMap that is mounted; the Node's label names one. Where there
//! is no label, the default or the first fallback that fits is taken. Which file that is, is decided here, purely;
//! `crate::node_config` follows the label and the folder.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::ConfigError;
use super::check::Given;
use super::settings::{Kind, Setting, outside};

/// The name of the file that [`Fallback::Named`] takes.
const NAMED: &str = "default";

/// Where the configurations are, and how one is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerNode {
    /// The folder with the configuration files.
    pub folder: PathBuf,
    /// The label's key.
    pub label: String,
    /// The file for nodes without the label.
    pub default: Option<String>,
    /// What to try where there is no default, in this order.
    pub fallbacks: Vec<Fallback>,
}

/// What a node without a label gets; NVIDIA's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The file `default`.
    Named,
    /// The one file that there is.
    Single,
    /// No file: the defaults.
    Empty,
}

/// Why no configuration is chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// The label, or the default, names a file that is not there.
    #[error("{who} names the configuration {name:?}: there is none of that name, only {}", list(.known))]
    NotThere {
        /// The label's key or the default.
        who: String,
        /// What it names.
        name: String,
        /// What there is.
        known: BTreeSet<String>,
    },
    /// No label, no default, and no fallback that fits.
    #[error(
        "the Node has no label {label}, no default is given (DEFAULT_CONFIG) and no fallback fits (FALLBACK_STRATEGIES); there are {}",
        list(.known)
    )]
    NoFallback {
        /// The label's key.
        label: String,
        /// What there is.
        known: BTreeSet<String>,
    },
}

fn list(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "no files at all".to_owned();
    }
    names.iter().map(String::as_str).take(20).collect::<Vec<_>>().join(", ")
}

impl PerNode {
    /// The name of the file to use; `None` for no file at all.
    ///
    /// `label` is the label's value, empty or absent alike; `files` are the names of the folder's files.
    ///
    /// # Errors
    /// [`ChoiceError`]: what was wanted is not there.
    pub fn choose<'a>(
        &'a self,
        label: Option<&'a str>,
        files: &'a BTreeSet<String>,
    ) -> Result<Option<&'a str>, ChoiceError> {
        let given =
            label.filter(|name| !name.is_empty()).map(|name| (format!("the label {}", self.label), name));
        let default = || self.default.as_deref().map(|name| ("DEFAULT_CONFIG".to_owned(), name));
        if let Some((who, name)) = given.or_else(default) {
            return files.get(name).map(|name| Some(name.as_str())).ok_or_else(|| ChoiceError::NotThere {
                who,
                name: name.to_owned(),
                known: files.clone(),
            });
        }
        let fitting = self.fallbacks.iter().find_map(|fallback| match fallback {
            Fallback::Named => files.get(NAMED).map(|name| Some(name.as_str())),
            Fallback::Single if files.len() == 1 => files.first().map(|name| Some(name.as_str())),
            Fallback::Single => None,
            Fallback::Empty => Some(None),
        });
        fitting.ok_or_else(|| ChoiceError::NoFallback { label: self.label.clone(), known: files.clone() })
    }
}

pub(super) const FOLDER: Setting = outside(
    "config-file-srcdir",
    &["CONFIG_FILE_SRCDIR"],
    "",
    "A folder of configuration files, of which a label of the Node names one",
);
pub(super) const LABEL: Setting = outside(
    "node-label",
    &["NODE_LABEL"],
    "nvidia.com/device-plugin.config",
    "The Node's label that names the configuration file",
);
pub(super) const DEFAULT: Setting =
    outside("default-config", &["DEFAULT_CONFIG"], "", "The configuration file of nodes without that label");
pub(super) const FALLBACKS: Setting = Setting {
    kind: Kind::List,
    ..outside(
        "fallback-strategies",
        &["FALLBACK_STRATEGIES"],
        "named,single",
        "What to try for nodes without label and default: named (the file default), single (the only file), empty (none)",
    )
};

/// What is said of configurations for each node; `None` where there is one for all.
pub(super) fn read(given: &Given, kubernetes: bool) -> Result<Option<PerNode>, ConfigError> {
    let Some(folder) = given.text(FOLDER.key) else { return Ok(None) };
    if given.text("config-file").is_some() {
        return Err(given.wrong("config-file", format!("use it or --config-file-srcdir {folder}, not both")));
    }
    if !kubernetes {
        let cure = "it takes the Node's label from the API server: use it without --kubernetes=false, or use --config-file";
        return Err(given.wrong(FOLDER.key, cure));
    }
    let fallbacks = match given.text(FALLBACKS.key) {
        None => vec![Fallback::Named, Fallback::Single],
        Some(_) => given
            .list(FALLBACKS.key)
            .into_iter()
            .map(|word| match word {
                "named" => Ok(Fallback::Named),
                "single" => Ok(Fallback::Single),
                "empty" => Ok(Fallback::Empty),
                _ => Err(given.wrong(FALLBACKS.key, "use named, single and empty, with commas between")),
            })
            .collect::<Result<_, _>>()?,
    };
    Ok(Some(PerNode {
        folder: given.path(FOLDER.key, "/")?,
        label: given.text(LABEL.key).unwrap_or(LABEL.default).to_owned(),
        default: given.text(DEFAULT.key).map(str::to_owned),
        fallbacks,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks which of these files is chosen; `!` and a part of the message for none, `-` for the defaults.
    #[track_caller]
    fn check(label: Option<&str>, default: Option<&str>, fallbacks: &[Fallback], files: &str, expect: &str) {
        let per_node = PerNode {
            folder: "/configs".into(),
            label: "l".into(),
            default: default.map(str::to_owned),
            fallbacks: fallbacks.to_vec(),
        };
        let files = files.split_whitespace().map(str::to_owned).collect();
        match (per_node.choose(label, &files), expect.strip_prefix('!')) {
            (Ok(name), None) => assert_eq!(name.unwrap_or("-"), expect),
            (Err(error), Some(want)) => assert!(error.to_string().contains(want), "{error}"),
            (result, _) => panic!("{result:?}, wanted {expect}"),
        }
    }

    use Fallback::{Empty, Named, Single};

    #[test]
    fn the_label_comes_before_the_default_and_that_before_fallbacks() {
        check(Some("b"), Some("a"), &[Named], "a b default", "b");
        check(None, Some("a"), &[Named], "a b default", "a");
        check(Some(""), Some("a"), &[], "a", "a");
        check(None, None, &[Named, Single], "a default", "default");
        check(None, None, &[Named, Single], "a", "a");
        check(None, None, &[Named, Empty, Single], "a", "-");
    }

    #[test]
    fn what_is_not_there_is_never_replaced_by_something_else() {
        check(Some("c"), Some("a"), &[Empty], "a b", r#"!the label l names the configuration "c""#);
        check(None, Some("c"), &[Empty], "a b", "!only a, b");
        check(None, None, &[Named, Single], "a b", "!the Node has no label l");
        check(None, None, &[Single], "", "!no files at all");
    }
}

//! `resources` of NVIDIA's file: names for GPUs and MIG devices other than the usual ones.
//!
//! NVIDIA's plugin reads them and ignores them with a warning; here they do what its documentation says.

use std::collections::BTreeSet;

use serde_json::Value;
use stowage_shared::resource::{NVIDIA_DOMAIN, ResourceName};

use super::file::At;
use super::{ConfigError, Sharing};

/// The names that a configuration gives; where none matches, the usual one stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceNames {
    /// For whole GPUs, by product name.
    pub gpus: Vec<NamePattern>,
    /// For MIG devices, by profile.
    pub mig: Vec<NamePattern>,
}

/// A name for everything that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    /// The whole text, in which `*` stands for any text.
    pub pattern: String,
    /// The name.
    pub name: ResourceName,
}

impl ResourceNames {
    /// The first name whose pattern matches.
    pub fn of<'a>(patterns: &'a [NamePattern], text: &str) -> Option<&'a ResourceName> {
        patterns.iter().find(|known| matches(&known.pattern, text)).map(|known| &known.name)
    }

    /// Whether some pattern gives this name.
    pub fn give(&self, name: &ResourceName) -> bool {
        self.gpus.iter().chain(&self.mig).any(|known| known.name == *name)
    }
}

/// The names that a configuration can give GPUs, beside the usual ones: whether or not it gives them to any now, since
/// somebody may still hold what is no longer offered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GpuNames(BTreeSet<ResourceName>);

impl GpuNames {
    /// Those of the two sections that give names.
    pub fn of(names: &ResourceNames, sharing: Option<&Sharing>) -> Self {
        let given = names.gpus.iter().chain(&names.mig).map(|known| &known.name);
        let renamed = sharing.into_iter().flat_map(|sharing| &sharing.resources);
        Self(given.chain(renamed.filter_map(|shared| shared.rename.as_ref())).cloned().collect())
    }

    /// Whether a resource is made of GPUs, by its name.
    pub fn has(&self, name: &str) -> bool {
        ResourceName::is_standard_gpu(name) || self.0.iter().any(|known| known.as_str() == name)
    }
}

/// Whether the whole of `text` is what `pattern` says.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(begin) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    let mut text = text;
    // Each piece where it comes first leaves the most for those behind it.
    for piece in pieces {
        let Some(at) = text.find(piece) else { return false };
        text = &text[at + piece.len()..];
    }
    text.ends_with(end)
}

/// A resource name as files write it: with NVIDIA's domain or without.
pub(super) fn resource_name(text: &str) -> Option<ResourceName> {
    let full = if text.contains('/') { text.to_owned() } else { format!("{NVIDIA_DOMAIN}/{text}") };
    // Another domain would be another vendor's resource.
    full.parse().ok().filter(|_| full.split('/').next() == Some(NVIDIA_DOMAIN))
}

/// Reads the section.
pub(super) fn read(at: &At<'_>, value: Option<&Value>) -> Result<ResourceNames, ConfigError> {
    let Some(map) = at.map(value)? else { return Ok(ResourceNames::default()) };
    at.only(map, &["gpus", "mig"])?;
    let section = |name: &str| {
        let at = at.key(name);
        let items = at.list(map.get(name))?.iter().enumerate();
        items.map(|(index, item)| pattern(&at.item(index), item)).collect::<Result<Vec<_>, _>>()
    };
    Ok(ResourceNames { gpus: section("gpus")?, mig: section("mig")? })
}

fn pattern(at: &At<'_>, item: &Value) -> Result<NamePattern, ConfigError> {
    let Some(map) = at.map(Some(item))? else {
        return Err(at.wrong(item, "pattern and name are wanted here"));
    };
    at.only(map, &["pattern", "name"])?;
    let text = |key: &str| {
        let value = map.get(key).unwrap_or(&Value::Null);
        let text = value.as_str().filter(|text| !text.is_empty());
        text.ok_or_else(|| at.key(key).wrong(value, "a text is wanted here"))
    };
    let name = text("name")?;
    let Some(name) = resource_name(name) else {
        let cure = "use a resource name of nvidia.com, at most 63 lower-case letters, digits, '-' and '.'";
        return Err(at.key("name").wrong(&Value::from(name), cure));
    };
    Ok(NamePattern { pattern: text("pattern")?.to_owned(), name })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("*A100*", "NVIDIA A100-SXM4-40GB", true),
            ("*A100*", "NVIDIA H100", false),
            ("1g.*", "1g.5gb+me", true),
            ("1g.*", "11g.5gb", false),
            ("1g.5gb", "1g.5gb+me", false),
            ("a*a", "a", false),
            ("*gb", "3g.20gb", true),
            ("a.c", "abc", false),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
    }

    /// The same, slowly: a star takes nothing, or one character and then whatever it takes.
    fn dumb(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => dumb(rest, text) || (!text.is_empty() && dumb(pattern, &text[1..])),
            ([one, rest @ ..], [two, more @ ..]) => one == two && dumb(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text), dumb(&chars(&pattern), &chars(&text)));
        }
    }
}

//! NVIDIA's configuration file, `version: v1`, in YAML or JSON.
//!
//! The file is read into plain values first and then walked by hand, so that every refusal can name the key with
//! its whole path, the value that stands there, and the cure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::names::ResourceNames;
use super::settings::{SETTINGS, Setting};
use super::sharing::Sharing;
use super::{ConfigError, names, sharing};

/// The longest file that is read, in bytes; real ones have a few hundred.
pub const CONFIG_FILE_MAX_BYTES: u64 = 1 << 20;

/// What the file says, its values not yet looked at, except for names and sharing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct File {
    /// Where it lies, for messages.
    pub place: String,
    /// The settings that it holds, as text, by key.
    pub settings: BTreeMap<&'static str, String>,
    /// `resources`.
    pub names: ResourceNames,
    /// `sharing.timeSlicing`.
    pub sharing: Option<Sharing>,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], for a file that is not there, too long, or says something that is not understood.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let place = path.display().to_string();
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let length = std::fs::metadata(path).map_err(read)?.len();
        if length > CONFIG_FILE_MAX_BYTES {
            return Err(ConfigError::TooLong { path: path.to_owned(), length });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(read)?, &place)
    }

    /// Reads the file's text; `place` is named in messages.
    ///
    /// # Errors
    /// As [`File::read`].
    pub fn parse(text: &str, place: &str) -> Result<Self, ConfigError> {
        let format = |problem: String| ConfigError::Format { place: place.to_owned(), problem };
        let root: Value = serde_saphyr::from_str(text).map_err(|error| format(error.to_string()))?;
        let mut file = Self { place: place.to_owned(), ..Self::default() };
        let root = match root {
            Value::Null => return Ok(file),
            Value::Object(map) => map,
            other => return Err(format(format!("it is {}, not a map of keys", show(&other)))),
        };
        let at = At { place, path: String::new() };
        at.only(&root, &["version", "flags", "resources", "sharing", "imex"])?;
        match root.get("version") {
            None | Some(Value::Null) => {}
            Some(Value::String(version)) if version.is_empty() || version == "v1" => {}
            Some(other) => return Err(at.key("version").wrong(other, "this program reads v1")),
        }
        for section in ["flags", "imex"] {
            file.settings_of(&at.key(section), root.get(section))?;
        }
        file.names = names::read(&at.key("resources"), root.get("resources"))?;
        file.sharing = sharing::read(&at.key("sharing"), root.get("sharing"), &file.names)?;
        Ok(file)
    }

    /// Takes the settings of one section, which may have sections of its own.
    fn settings_of(&mut self, at: &At<'_>, value: Option<&Value>) -> Result<(), ConfigError> {
        let Some(map) = at.map(value)? else { return Ok(()) };
        for (name, value) in map {
            let at = at.key(name);
            if let Some(setting) = Setting::by_key(&at.path).filter(|setting| setting.in_file) {
                if let Some(text) = at.scalar(value)? {
                    self.settings.insert(setting.key, text);
                }
            } else if SETTINGS.iter().any(|s| s.in_file && s.key.starts_with(&format!("{}.", at.path))) {
                self.settings_of(&at, Some(value))?;
            } else {
                return Err(at.wrong(value, &format!("no such key: known here are {}", at.siblings())));
            }
        }
        Ok(())
    }
}

/// Where in the file we are.
pub(super) struct At<'a> {
    place: &'a str,
    path: String,
}

impl At<'_> {
    pub(super) fn key(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { place: self.place, path }
    }

    pub(super) fn item(&self, index: usize) -> Self {
        Self { place: self.place, path: format!("{}[{index}]", self.path) }
    }

    pub(super) fn wrong(&self, value: &Value, cure: &str) -> ConfigError {
        ConfigError::Value {
            key: self.path.clone(),
            value: show(value),
            place: self.place.to_owned(),
            cure: cure.to_owned(),
        }
    }

    /// The keys that would be known beside this one.
    pub(super) fn siblings(&self) -> String {
        let parent = self.path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let names = SETTINGS
            .iter()
            .filter(|setting| setting.in_file)
            .filter_map(|setting| setting.key.strip_prefix(parent)?.strip_prefix('.')?.split('.').next());
        let mut seen = BTreeSet::new();
        names.filter(|name| seen.insert(*name)).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn only(&self, map: &Map<String, Value>, known: &[&str]) -> Result<(), ConfigError> {
        match map.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, value)) => {
                let cure = format!("no such key: known here are {}", known.join(", "));
                Err(self.key(name).wrong(value, &cure))
            }
        }
    }

    pub(super) fn map<'v>(
        &self,
        value: Option<&'v Value>,
    ) -> Result<Option<&'v Map<String, Value>>, ConfigError> {
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.wrong(other, "a map of keys is wanted here")),
        }
    }

    pub(super) fn list<'v>(&self, value: Option<&'v Value>) -> Result<&'v [Value], ConfigError> {
        match value {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(self.wrong(other, "a list is wanted here")),
        }
    }

    /// A setting's value as text, as its flag would take it; a list of scalars with commas between.
    pub(super) fn scalar(&self, value: &Value) -> Result<Option<String>, ConfigError> {
        match value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            Value::Bool(_) | Value::Number(_) => Ok(Some(value.to_string())),
            Value::Array(list) => {
                let texts = list.iter().map(|item| match item {
                    Value::Array(_) | Value::Object(_) | Value::Null => {
                        Err(self.wrong(value, "a list of plain values is wanted here"))
                    }
                    Value::String(text) => Ok(text.clone()),
                    other => Ok(other.to_string()),
                });
                Ok(Some(texts.collect::<Result<Vec<_>, _>>()?.join(",")))
            }
            Value::Object(_) => Err(self.wrong(value, "a plain value is wanted here")),
        }
    }

    pub(super) fn boolean(&self, map: &Map<String, Value>, name: &str) -> Result<bool, ConfigError> {
        match map.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.key(name).wrong(other, "use true or false")),
        }
    }
}

/// A value as it stands in the file, shortened.
fn show(value: &Value) -> String {
    const SHOWN_CHARACTERS: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

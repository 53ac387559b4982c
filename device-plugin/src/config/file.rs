//! NVIDIA's configuration file, `version: v1`, in YAML or JSON.
//!
//! The file is read into plain values first and then walked by hand, so that every refusal can name the key with
//! its whole path, the value that stands there, and the cure.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use stowage_shared::contract::REPLICAS_MAX;
use stowage_shared::resource::{NVIDIA_DOMAIN, ResourceName};

use super::ConfigError;
use super::settings::{SETTINGS, Setting};

/// The longest file that is read, in bytes; real ones have a few hundred.
pub const CONFIG_FILE_MAX_BYTES: u64 = 1 << 20;

/// How resources are shared by time-slicing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimeSlicing {
    /// Whether shared resources get `.shared` behind their name.
    pub rename_by_default: bool,
    /// Whether a container may ask for one share only.
    pub fail_requests_greater_than_one: bool,
    /// Into how many replicas each device of a resource is divided; 2 or more.
    pub replicas: BTreeMap<ResourceName, u32>,
}

/// What the file says, its values not yet looked at, except for the sharing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct File {
    /// Where it lies, for messages.
    pub place: String,
    /// The settings that it holds, as text, by key.
    pub settings: BTreeMap<&'static str, String>,
    /// `sharing.timeSlicing`.
    pub time_slicing: Option<TimeSlicing>,
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
        check_resources(&at.key("resources"), root.get("resources"))?;
        file.time_slicing = sharing(&at.key("sharing"), root.get("sharing"))?;
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
struct At<'a> {
    place: &'a str,
    path: String,
}

impl At<'_> {
    fn key(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { place: self.place, path }
    }

    fn item(&self, index: usize) -> Self {
        Self { place: self.place, path: format!("{}[{index}]", self.path) }
    }

    fn wrong(&self, value: &Value, cure: &str) -> ConfigError {
        ConfigError::Value {
            key: self.path.clone(),
            value: show(value),
            place: self.place.to_owned(),
            cure: cure.to_owned(),
        }
    }

    /// The keys that would be known beside this one.
    fn siblings(&self) -> String {
        let parent = self.path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let mut names: Vec<&str> = SETTINGS
            .iter()
            .filter(|setting| setting.in_file)
            .filter_map(|setting| setting.key.strip_prefix(parent)?.strip_prefix('.')?.split('.').next())
            .collect();
        names.dedup();
        names.join(", ")
    }

    fn only(&self, map: &Map<String, Value>, known: &[&str]) -> Result<(), ConfigError> {
        match map.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, value)) => {
                let cure = format!("no such key: known here are {}", known.join(", "));
                Err(self.key(name).wrong(value, &cure))
            }
        }
    }

    fn map<'v>(&self, value: Option<&'v Value>) -> Result<Option<&'v Map<String, Value>>, ConfigError> {
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.wrong(other, "a map of keys is wanted here")),
        }
    }

    fn list<'v>(&self, value: Option<&'v Value>) -> Result<&'v [Value], ConfigError> {
        match value {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(self.wrong(other, "a list is wanted here")),
        }
    }

    /// A setting's value as text, as its flag would take it; a list of scalars with commas between.
    fn scalar(&self, value: &Value) -> Result<Option<String>, ConfigError> {
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

    fn boolean(&self, map: &Map<String, Value>, name: &str) -> Result<bool, ConfigError> {
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

/// `resources`: only the naming that NVIDIA's plugin has anyway. (It ignores any other with a warning.)
fn check_resources(at: &At<'_>, value: Option<&Value>) -> Result<(), ConfigError> {
    let Some(map) = at.map(value)? else { return Ok(()) };
    at.only(map, &["gpus", "mig"])?;
    for (section, want) in [("gpus", Some(("*", "gpu"))), ("mig", None)] {
        let at = at.key(section);
        for (index, item) in at.list(map.get(section))?.iter().enumerate() {
            let text = |key| item.get(key).and_then(Value::as_str).unwrap_or_default();
            let (pattern, name) = (text("pattern"), text("name"));
            let name =
                name.strip_prefix(NVIDIA_DOMAIN).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
            let default = want == Some((pattern, name))
                || (want.is_none()
                    && !pattern.is_empty()
                    && name == format!("mig-{}", pattern.replace('+', ".")));
            if !default {
                let cure = "renaming resources is not supported yet: leave it out, the names are nvidia.com/gpu and nvidia.com/mig-<profile>";
                return Err(at.item(index).wrong(item, cure));
            }
        }
    }
    Ok(())
}

fn sharing(at: &At<'_>, value: Option<&Value>) -> Result<Option<TimeSlicing>, ConfigError> {
    let Some(map) = at.map(value)? else { return Ok(None) };
    at.only(map, &["timeSlicing", "mps"])?;
    if let Some(mps) = map.get("mps").filter(|mps| !mps.is_null()) {
        let cure = "MPS is not supported yet: use sharing.timeSlicing, or leave it out";
        return Err(at.key("mps").wrong(mps, cure));
    }
    let at = at.key("timeSlicing");
    let Some(map) = at.map(map.get("timeSlicing"))? else { return Ok(None) };
    at.only(map, &["renameByDefault", "failRequestsGreaterThanOne", "resources"])?;
    let mut sharing = TimeSlicing {
        rename_by_default: at.boolean(map, "renameByDefault")?,
        fail_requests_greater_than_one: at.boolean(map, "failRequestsGreaterThanOne")?,
        replicas: BTreeMap::new(),
    };
    let at = at.key("resources");
    for (index, item) in at.list(map.get("resources"))?.iter().enumerate() {
        let at = at.item(index);
        let Some(map) = at.map(Some(item))? else { continue };
        let (name, replicas) = shared_resource(&at, map, sharing.rename_by_default)?;
        if sharing.replicas.insert(name, replicas).is_some() {
            return Err(at.wrong(item, "this resource is there already: name each once"));
        }
    }
    Ok(Some(sharing))
}

/// One entry of `sharing.timeSlicing.resources`.
fn shared_resource(
    at: &At<'_>,
    map: &Map<String, Value>,
    rename_by_default: bool,
) -> Result<(ResourceName, u32), ConfigError> {
    at.only(map, &["name", "rename", "devices", "replicas"])?;
    let wrong = |key: &str, cure: &str| at.key(key).wrong(map.get(key).unwrap_or(&Value::Null), cure);

    let text = map.get("name").and_then(Value::as_str).unwrap_or_default();
    let full = if text.contains('/') { text.to_owned() } else { format!("{NVIDIA_DOMAIN}/{text}") };
    let name: ResourceName = full
        .parse()
        .ok()
        .filter(|_| ResourceName::is_standard_gpu(&full))
        .ok_or_else(|| wrong("name", "use nvidia.com/gpu or nvidia.com/mig-<profile>"))?;

    let replicas = map.get("replicas").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let replicas = replicas
        .filter(|replicas| (2..=REPLICAS_MAX).contains(replicas))
        .ok_or_else(|| wrong("replicas", &format!("use a whole number from 2 to {REPLICAS_MAX}")))?;

    let rename = map.get("rename").and_then(Value::as_str).unwrap_or_default();
    let default_rename =
        rename_by_default && (rename == name.shared().as_str() || rename == name.shared().short());
    if !(map.get("rename").is_none_or(Value::is_null) || rename.is_empty() || default_rename) {
        return Err(wrong(
            "rename",
            "other names are not supported yet: leave it out and set renameByDefault",
        ));
    }
    match map.get("devices") {
        None | Some(Value::Null) => {}
        Some(Value::String(all)) if all == "all" => {}
        Some(_) => return Err(wrong("devices", "sharing some of the devices is not supported yet: use all")),
    }
    Ok((name, replicas))
}

//! From flags, environment and file to a [`Config`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, Command};
use ops::logs::LogArgs;

use super::settings::{SETTINGS, Setting, Support};
use super::{AllocationPolicy, Config, ConfigError, DeviceIdStrategy, File, MigStrategy};
use super::{answers, health, labels, mps, on_demand, per_node};

/// The program's command line, made from the table of settings.
pub fn arguments() -> Command {
    let command = Command::new("stowage-device-plugin")
        .version(env!("CARGO_PKG_VERSION"))
        .args(SETTINGS.iter().filter_map(Setting::arg));
    // Afterwards, since they bring a description of their own.
    LogArgs::augment_args(command).about(
        "Advertises this node's NVIDIA GPUs to the kubelet, and hands out what Stowage's extender planned",
    )
}

/// Reads and checks everything; nothing else of the program runs before.
///
/// `env` is the environment: a parameter, so that a test needs not change the process's own.
///
/// # Errors
/// [`ConfigError`], naming the first thing that is wrong.
pub fn load(flags: &ArgMatches, env: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let given = Given::of(flags, env);
    let file = given.text("config-file").map(PathBuf::from);
    check(given, file.as_deref())
}

/// The same, with this configuration file or none.
///
/// # Errors
/// As [`load`].
pub fn load_chosen(
    flags: &ArgMatches,
    env: impl Fn(&str) -> Option<String>,
    file: Option<&Path>,
) -> Result<Config, ConfigError> {
    check(Given::of(flags, env), file)
}

fn check(mut given: Given, file: Option<&Path>) -> Result<Config, ConfigError> {
    let file = file.map(File::read).transpose()?.unwrap_or_default();
    for (key, text) in file.settings {
        given.values.entry(key).or_insert_with(|| Value { text, place: file.place.clone() });
    }
    given.refuse_what_is_not_supported()?;
    let kubernetes = given.boolean("kubernetes")?.unwrap_or(true);
    let driver_root = given.path("flags.nvidiaDriverRoot", "/")?;
    let config = Config {
        node_name: given.node_name(kubernetes)?,
        mig_strategy: given
            .one_of(
                "flags.migStrategy",
                &[
                    ("none", MigStrategy::None),
                    ("single", MigStrategy::Single),
                    ("mixed", MigStrategy::Mixed),
                    ("on-demand", MigStrategy::OnDemand),
                ],
            )?
            .unwrap_or(MigStrategy::None),
        elastic_gpus: given.boolean("flags.elasticGPUs")?.unwrap_or(false),
        mig_static: given.list("flags.migStaticGPUs").into_iter().map(str::to_owned).collect(),
        fail_on_init_error: given.boolean("flags.failOnInitError")?.unwrap_or(true),
        device_list_strategies: answers::device_list_strategies(&given)?,
        cdi_annotation_prefix: given
            .text("flags.plugin.cdiAnnotationPrefix")
            .unwrap_or("cdi.k8s.io/")
            .to_owned(),
        extras: answers::extras(&given)?,
        imex: answers::imex(&given)?,
        cdi: answers::cdi(&given)?,
        device_id_strategy: given
            .one_of(
                "flags.plugin.deviceIDStrategy",
                &[("uuid", DeviceIdStrategy::Uuid), ("index", DeviceIdStrategy::Index)],
            )?
            .unwrap_or(DeviceIdStrategy::Uuid),
        pass_device_specs: given.boolean("flags.plugin.passDeviceSpecs")?.unwrap_or(false),
        dev_root: match given.text("flags.nvidiaDevRoot") {
            Some(_) => given.path("flags.nvidiaDevRoot", "/")?,
            None => driver_root.clone(),
        },
        driver_root,
        container_driver_root: given.path("flags.plugin.containerDriverRoot", "/driver-root")?,
        names: file.names,
        sharing: file.sharing,
        mps: mps::read(&given)?,
        allocation_policy: given
            .one_of(
                "flags.plugin.sharedDevicesAllocationPolicy",
                &[("distributed", AllocationPolicy::Distributed), ("packed", AllocationPolicy::Packed)],
            )?
            .unwrap_or_default(),
        kubelet_socket: given.path("kubelet-socket", "/var/lib/kubelet/device-plugins/kubelet.sock")?,
        pod_resources_socket: given.path("pod-resources-socket", kubelet_api::pod_resources::SOCKET)?,
        http_address: given.http_address()?,
        standby: given.boolean("standby")?.unwrap_or(false),
        kubernetes,
        sysfs: given.path("sysfs-root", "/sys")?,
        procfs: given.path("procfs-root", "/proc")?,
        health: health::read(&given)?,
        dcgm_metrics: given.boolean("dcgm-metrics")?.unwrap_or(true),
        labels: labels::read(&given, kubernetes)?,
        per_node: per_node::read(&given, kubernetes)?,
    };
    mps::check(&given, &config)?;
    on_demand::check(&given, &config)?;
    Ok(config)
}

/// A value and who gave it.
struct Value {
    text: String,
    place: String,
}

/// What was given, by key.
pub(super) struct Given {
    values: BTreeMap<&'static str, Value>,
}

impl Given {
    fn of(flags: &ArgMatches, env: impl Fn(&str) -> Option<String>) -> Self {
        let mut given = Self { values: BTreeMap::new() };
        for setting in SETTINGS {
            given.take_flag_or_env(setting, flags, &env);
        }
        given
    }

    fn take_flag_or_env(
        &mut self,
        setting: &'static Setting,
        flags: &ArgMatches,
        env: &impl Fn(&str) -> Option<String>,
    ) {
        let flag = (!setting.flag.is_empty()).then(|| flags.get_many::<String>(setting.flag)).flatten();
        let from_flag = flag.map(|texts| {
            let text = texts.map(String::as_str).collect::<Vec<_>>().join(",");
            Value { text, place: format!("--{}", setting.flag) }
        });
        // An empty variable counts as none, as charts set what was left out.
        let from_env = || {
            setting.env.iter().find_map(|name| {
                let text = env(name).filter(|text| !text.is_empty())?;
                Some(Value { text, place: format!("environment variable {name}") })
            })
        };
        if let Some(value) = from_flag.or_else(from_env) {
            self.values.insert(setting.key, value);
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| value.text.as_str())
    }

    pub(super) fn wrong(&self, key: &str, cure: impl Into<String>) -> ConfigError {
        let (value, place) =
            self.values.get(key).map_or(("", ""), |value| (value.text.as_str(), value.place.as_str()));
        ConfigError::Value {
            key: key.to_owned(),
            value: format!("{:?}", value.chars().take(200).collect::<String>()),
            place: place.to_owned(),
            cure: cure.into(),
        }
    }

    fn refuse_what_is_not_supported(&self) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            let (Support::NotYet { neutral, cure }, Some(text)) = (setting.support, self.text(setting.key))
            else {
                continue;
            };
            let is_switch_off = neutral.contains(&"false") && boolean(text) == Some(false);
            if !(text.is_empty() || neutral.contains(&text) || is_switch_off) {
                return Err(self.wrong(setting.key, cure));
            }
        }
        Ok(())
    }

    /// The texts of a list; none where nothing is given.
    pub(super) fn list(&self, key: &str) -> Vec<&str> {
        let texts = self.text(key).unwrap_or_default().split(',').map(str::trim);
        texts.filter(|text| !text.is_empty()).collect()
    }

    fn one_of<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let found = choices.iter().find(|(name, _)| *name == text);
        found.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let (last, rest) = names.split_last().map_or(("", &[][..]), |(last, rest)| (*last, rest));
            self.wrong(key, format!("use {} or {last}", rest.join(", ")))
        })
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        boolean(text).map(Some).ok_or_else(|| self.wrong(key, "use true or false"))
    }

    pub(super) fn path(&self, key: &str, default: &str) -> Result<PathBuf, ConfigError> {
        let path = PathBuf::from(self.text(key).unwrap_or(default));
        if path.is_absolute() { Ok(path) } else { Err(self.wrong(key, "use an absolute path")) }
    }

    fn node_name(&self, kubernetes: bool) -> Result<String, ConfigError> {
        const NAME_MAX_BYTES: usize = 253;
        let Some(name) = self.text("node-name") else {
            return if kubernetes {
                let cure = "use --node-name, or set NODE_NAME from the pod's spec.nodeName";
                Err(ConfigError::Missing { key: "node-name", cure })
            } else {
                Ok("unnamed".into())
            };
        };
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.bytes().all(allowed) {
            return Err(
                self.wrong("node-name", "use the Node's name: lower-case letters, digits, '-' and '.'")
            );
        }
        Ok(name.to_owned())
    }

    fn http_address(&self) -> Result<SocketAddr, ConfigError> {
        let default = format!("0.0.0.0:{}", stowage_shared::contract::PLUGIN_HTTP_PORT);
        let text = self.text("http-address").unwrap_or(&default);
        text.parse()
            .map_err(|_| self.wrong("http-address", format!("use an address and a port, such as {default}")))
    }
}

/// The words that Go's `strconv.ParseBool` knows, since NVIDIA's files and charts use them.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

//! How a kubelet stand-in is set up.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kubelet_api::device_plugin::{DIAL_TIMEOUT, ENDPOINT_STOP_GRACE_PERIOD};

/// How long a plugin's answer is waited for. The kubelet itself has no limit, except 30 s for
/// `PreStartContainer`; here a plugin that hangs shall end a test with a reason.
const PLUGIN_CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a kubelet stand-in listens, and what it may do its own way.
///
/// ```
/// # use stowage_stand_ins::kubelet::KubeletOptions;
/// let options = KubeletOptions { seed: 7, ..KubeletOptions::new("gpu-node-1", "/tmp/gpu-node-1") };
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
pub struct KubeletOptions {
    /// The node's name: for logs, and for [`DeviceChoice::Own`].
    pub node_name: String,
    /// The folder of `kubelet.sock` and of the plugins' sockets, made if missing. **Every socket in it
    /// is deleted at the start**, as the kubelet does.
    pub device_plugin_dir: PathBuf,
    /// The pod-resources socket; its folder is made if missing.
    pub pod_resources_socket: PathBuf,
    /// Where the kubelet takes the order of a Go map, which is random, the order comes from this seed.
    pub seed: u64,
    /// Who chooses among the free devices.
    pub device_choice: DeviceChoice,
    /// How long `Register` dials the plugin: 10 s as the kubelet.
    pub dial_timeout: Duration,
    /// How long a plugin's answer is waited for: 60 s; the kubelet waits without limit.
    pub plugin_call_timeout: Duration,
    /// How long a vanished plugin's devices stay in the capacity: 5 minutes as the kubelet.
    pub endpoint_stop_grace_period: Duration,
}

impl KubeletOptions {
    /// The kubelet's own values, with the sockets below `root` as the kubelet has them below
    /// `/var/lib/kubelet`: `device-plugins/kubelet.sock` and `pod-resources/kubelet.sock`.
    #[must_use]
    pub fn new(node_name: impl Into<String>, root: impl AsRef<Path>) -> Self {
        let root = root.as_ref();
        Self {
            node_name: node_name.into(),
            device_plugin_dir: root.join("device-plugins"),
            pod_resources_socket: root.join("pod-resources/kubelet.sock"),
            seed: 0,
            device_choice: DeviceChoice::AskPlugin,
            dial_timeout: DIAL_TIMEOUT,
            plugin_call_timeout: PLUGIN_CALL_TIMEOUT,
            endpoint_stop_grace_period: ENDPOINT_STOP_GRACE_PERIOD,
        }
    }
}

/// Who chooses among the free devices.
#[derive(Clone, Default)]
pub enum DeviceChoice {
    /// `GetPreferredAllocation`, where the plugin has it; else, and for the rest, at random.
    #[default]
    AskPlugin,
    /// This function instead of the plugin, whatever the plugin's options say: to play another
    /// plugin's order with our own. Its answer counts as a plugin's does: what is not available is
    /// dropped, and what is missing is filled up at random.
    Own(Arc<ChooseDevices>),
}

/// A function that chooses devices for one container.
pub type ChooseDevices = dyn Fn(&ChoiceRequest<'_>) -> Vec<String> + Send + Sync;

impl DeviceChoice {
    /// [`DeviceChoice::Own`] from a closure.
    pub fn own(choose: impl Fn(&ChoiceRequest<'_>) -> Vec<String> + Send + Sync + 'static) -> Self {
        Self::Own(Arc::new(choose))
    }
}

impl fmt::Debug for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AskPlugin => "AskPlugin",
            Self::Own(_) => "Own(..)",
        })
    }
}

/// What `GetPreferredAllocation` is asked for one container.
#[derive(Debug, Clone, Copy)]
pub struct ChoiceRequest<'a> {
    /// The node.
    pub node_name: &'a str,
    /// The resource.
    pub resource_name: &'a str,
    /// What can be had, `must_include` among them.
    pub available: &'a BTreeSet<String>,
    /// What an init container of the pod used before.
    pub must_include: &'a BTreeSet<String>,
    /// How many devices in all.
    pub size: usize,
}

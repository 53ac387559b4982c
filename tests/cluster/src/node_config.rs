//! The configuration files of one node: containerd, its network, the kubelet.
//!
//! Text in, text out; [`crate::node`] writes the files and starts what reads them.

use std::path::Path;

use serde_json::{Value, json};

use crate::control_plane::{BRIDGE, BRIDGE_ADDRESS, SERVICES};
use crate::images::PAUSE;
use crate::node::{NodeOptions, Place};
use crate::pki::Identity;

/// containerd's configuration: its folders, its socket, the image that holds a pod's namespaces, CDI.
pub(crate) fn containerd(place: &Place, cni_plugins: &str) -> String {
    let folder = place.folder.display();
    let socket = place.containerd_socket();
    format!(
        r#"version = 3
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
# "opt" would create /opt/containerd on the host; NRI is nothing we use.
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]

[grpc]
  address = "{socket}"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE}"

[plugins.'io.containerd.cri.v1.runtime']
  # Where even root lacks CAP_SYS_RESOURCE (containers, some CI), runc else ends with "can't get final child's PID".
  restrict_oom_score_adj = true
  enable_cdi = true
  cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{cni_plugins}"]
    conf_dir = "{folder}/cni"
"#,
        socket = socket.display(),
    )
}

/// The pods' network: one bridge for all nodes, a range of addresses for each. No masquerading: everything that a pod
/// reaches is on the bridge, the API server's Service too.
pub(crate) fn network(place: &Place) -> Value {
    let range = json!({
        "subnet": "10.88.0.0/16",
        "rangeStart": format!("10.88.{}.1", place.number),
        "rangeEnd": format!("10.88.{}.254", place.number),
    });
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": place.folder.join("addresses"),
                    "ranges": [[range]],
                    "routes": [{ "dst": SERVICES, "gw": BRIDGE_ADDRESS }],
                },
            },
            { "type": "loopback" },
        ],
    })
}

/// The kubelet's configuration; `options.kubelet` overrides what is here, key by key at the top level.
pub(crate) fn kubelet(place: &Place, options: &NodeOptions, serving: &Identity, authority: &Path) -> Value {
    let taints: Vec<_> = options
        .taints
        .iter()
        .map(|(key, value, effect)| json!({ "key": key, "value": value, "effect": effect }))
        .collect();
    let mut configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", place.containerd_socket().display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": place.cgroup_root,
        "failCgroupV1": false,
        "failSwapOn": false,
        // Every kubelet on the ports of its own address.
        "address": place.address,
        "healthzBindAddress": place.address,
        "tlsCertFile": serving.certificate,
        "tlsPrivateKeyFile": serving.key,
        // Only the API server has a client certificate that this authority signed for the purpose; asking
        // back who may read logs would need rights that add nothing here.
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": false },
            "x509": { "clientCAFile": authority },
        },
        "authorization": { "mode": "AlwaysAllow" },
        "registerWithTaints": taints,
        // No Services and no DNS.
        "makeIPTablesUtilChains": false,
        "resolvConf": "",
        // The host's full disk is not the tests' affair, and an image that was removed could not be pulled.
        "evictionHard": { "memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%" },
        "imageGCHighThresholdPercent": 100,
        "podLogsDir": place.folder.join("pods"),
        "volumePluginDir": place.folder.join("volume-plugins"),
    });
    if let (Some(configuration), Some(overrides)) =
        (configuration.as_object_mut(), options.kubelet.as_object())
    {
        configuration.extend(overrides.clone());
    }
    configuration
}

//! What a user can get wrong: the exit code is the documented one, and the message names the thing and the cure.

use nvml_simulator::description::GpuDescription;
use stowage_shared::contract::ExitCode;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::harness::*;

/// Starts the plugin on a node of such GPUs; it must end with this code, after a message with all of these texts.
async fn refused(
    gpus: Vec<GpuDescription>,
    change: impl FnOnce(&Node, &mut Command),
    code: ExitCode,
    texts: &[&str],
) {
    let node = Node::new(gpus).await;
    let plugin = node.start(|command| change(&node, command));
    let (ended, log) = plugin.ended().await;
    assert_eq!(ended, Some(code as i32), "{log}");
    let log = log.replace(&node.path("").display().to_string(), "NODE/");
    for text in texts {
        assert!(log.contains(text), "wanted: {text}\n   got: {log}");
    }
    assert!(node.sockets().is_empty(), "nothing is offered");
}

async fn file_refused(text: &str, texts: &[&str]) {
    let change = |node: &Node, command: &mut Command| {
        command.args(["--config-file", &node.write("config.yaml", text)]);
    };
    refused(vec![a100()], change, ExitCode::Config, texts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_file_that_is_wrong_says_key_place_and_cure() {
    file_refused(
        "flags: {migStrtegy: mixed}",
        &[r#"flags.migStrtegy is "mixed" (NODE/config.yaml): no such key: known here are migStrategy, "#],
    )
    .await;
    file_refused(
        "sharing: {mps: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}",
        &["flags.mpsRoot is not set: sharing.mps wants the folder where its daemons and pods meet: set --mps-root (MPS_ROOT)"],
    )
    .await;
    let mps = "sharing: {mps: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}";
    file_refused(
        &format!("flags: {{mpsRoot: /run/nvidia/mps, migStrategy: mixed}}\n{mps}"),
        &[r#"flags.migStrategy is "mixed" (NODE/config.yaml): MPS shares whole GPUs: use none or single"#],
    )
    .await;
    file_refused(
        &format!("flags: {{mpsRoot: /run/nvidia/mps, elasticGPUs: true}}\n{mps}"),
        &["under MPS only its daemon may use a GPU"],
    )
    .await;
    file_refused(
        "sharing: {mps: {resources: [{name: nvidia.com/gpu, replicas: 49}]}}",
        &["sharing.mps.resources[0].replicas is 49", "from 2 to 48, the most clients of one MPS server"],
    )
    .await;
    file_refused(
        "sharing: {mps: {resources: [{name: nvidia.com/mig-1g.5gb, replicas: 2}]}}",
        &["MPS shares whole GPUs: use sharing.timeSlicing for MIG devices"],
    )
    .await;
    file_refused(
        "flags: {migStrategy: mixd}",
        &[r#"flags.migStrategy is "mixd" (NODE/config.yaml): use none, single, mixed or on-demand"#],
    )
    .await;
    file_refused(
        "version: v1\nflags: {a",
        &["the configuration file NODE/config.yaml cannot be read as YAML or JSON: ", "line 2"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_file_that_cannot_be_read_is_named() {
    let cure = "correct --config-file (CONFIG_FILE), or mount the file";
    let missing = |node: &Node, command: &mut Command| {
        command.arg("--config-file").arg(node.path("config.yaml"));
    };
    let texts = ["cannot read the configuration file NODE/config.yaml", cure, "No such file or directory"];
    refused(vec![a100()], missing, ExitCode::Config, &texts).await;
    let folder = |node: &Node, command: &mut Command| {
        command.env("CONFIG_FILE", node.path("driver"));
    };
    let texts = ["cannot read the configuration file NODE/driver", cure, "Is a directory"];
    refused(vec![a100()], folder, ExitCode::Config, &texts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusable_flags_and_names_are_explained() {
    for (flag, code, texts) in [
        (
            "--mig-stratgy=none",
            ExitCode::Usage,
            &["unexpected argument '--mig-stratgy'", "--mig-strategy"][..],
        ),
        ("--log-format=xml", ExitCode::Usage, &["invalid value 'xml'", "json, text"]),
        ("--device-list-strategy=cdi", ExitCode::Config, &["use envvar, volume-mounts, cdi-annotations or"]),
        ("--node-name=", ExitCode::Config, &["node-name is", "use the Node's name"]),
    ] {
        refused(vec![a100()], |_, command| _ = command.arg(flag), code, texts).await;
    }
    let no_name = |_: &Node, command: &mut Command| _ = command.env_remove("NODE_NAME");
    let texts = ["node-name is not set: use --node-name, or set NODE_NAME from the pod's spec.nodeName"];
    refused(vec![a100()], no_name, ExitCode::Config, &texts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_way_to_the_api_server_is_named() {
    let texts =
        ["no way to reach the API server: set KUBECONFIG, or run in a pod with a ServiceAccount token"];
    let gone = |_: &Node, command: &mut Command| _ = command.env("KUBECONFIG", "/does/not/exist");
    refused(vec![a100()], gone, ExitCode::Config, &texts).await;
    let none =
        |_: &Node, command: &mut Command| _ = command.env_remove("KUBECONFIG").env("HOME", "/does/not/exist");
    refused(vec![a100()], none, ExitCode::Config, &texts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_nvml_library_is_named() {
    // A machine with a driver has the library where the loader looks; a damaged one below the root comes first.
    let damaged = |node: &Node, command: &mut Command| {
        node.write("damaged/usr/lib64/libnvidia-ml.so.1", "no library");
        command.arg("--driver-root-ctr-path").arg(node.path("damaged"));
    };
    let texts = [
        "cannot load NODE/damaged/usr/lib64/libnvidia-ml.so.1: is the NVIDIA driver installed, and --driver-root-ctr-path (DRIVER_ROOT_CTR_PATH) where this program sees it? Looked below NODE/damaged, ",
        "file too short",
    ];
    refused(vec![a100()], damaged, ExitCode::Unavailable, &texts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_is_not_loaded_is_named() {
    let no_driver = |_: &Node, command: &mut Command| _ = command.env_remove(nvml_simulator::CONFIG_ENV);
    let texts = [
        "NODE/driver/usr/lib64/libnvidia-ml.so.1 was loaded, but NVML does not start: is the NVIDIA driver's kernel module loaded, and /dev/nvidiactl visible here?",
        "NVIDIA driver is not loaded",
    ];
    refused(vec![a100()], no_driver, ExitCode::Unavailable, &texts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nvml_may_be_missing_it_says_so_and_is_not_ready() {
    let node = Node::new(vec![a100()]).await;
    let mut plugin = node.start(|command| {
        command.env_remove(nvml_simulator::CONFIG_ENV).env("FAIL_ON_INIT_ERROR", "false");
    });
    plugin.until_not_ready("NVML does not work: ").await;
    let (_, why) = plugin.get("/readyz").await;
    assert!(why.contains("kernel module loaded") && why.contains("NVIDIA driver is not loaded"), "{why}");
    assert_eq!(plugin.get("/livez").await.0, 200);
    plugin.until_said("nothing is offered until it does, as failOnInitError is false.").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_gpus_is_named_and_offers_nothing() {
    let node = Node::new(Vec::new()).await;
    let mut plugin = node.ready(&[]).await;
    let log = plugin.until_said("NVML finds no GPU on this node, so nothing is offered").await;
    assert!(log.contains("keep this program off it"), "{log}");
    assert_eq!((node.gpu_node().await.gpus.len(), node.sockets().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_gpu_is_named_and_the_others_are_offered() {
    let node = Node::new(vec![a100(), a100().lost(), a100()]).await;
    let mut plugin = node.ready(&[]).await;
    plugin.until_said("GPU 1 cannot be read, and is not offered: ").await;
    assert_eq!(node.allocatable(), [(GPU.to_owned(), 2)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strategy_that_does_not_fit_the_gpus_is_explained() {
    let single = |_: &Node, command: &mut Command| _ = command.arg("--mig-strategy=single");
    let texts = ["migStrategy is single", "GPU 1 is, GPU 0 is not. Use mixed, or switch MIG mode"];
    refused(vec![a100(), a100().with_mig(&["1g.5gb"])], single, ExitCode::Config, &texts).await;
    let specs =
        |_: &Node, command: &mut Command| _ = command.args(["--mig-strategy=mixed", "--pass-device-specs"]);
    let texts = [
        "cannot read NODE/proc/driver/nvidia-caps/mig-minors, which passDeviceSpecs and CDI need on a node with MIG devices",
        "--procfs-root (PROCFS_ROOT)",
    ];
    refused(vec![a100().with_mig(&["1g.5gb"])], specs, ExitCode::Config, &texts).await;
    let node = Node::new(vec![a100(), a100().with_mig(&[])]).await;
    let mut plugin = node.ready(&["--mig-strategy=mixed"]).await;
    plugin.until_said("GPU 1 is in MIG mode without MIG devices, and offers nothing: create some").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_kubelet_folder_is_named() {
    let elsewhere = |node: &Node, command: &mut Command| {
        command.arg("--kubelet-socket").arg(node.path("nowhere/kubelet.sock"));
    };
    let texts = [
        "there is no folder NODE/nowhere, where the kubelet has its sockets: is this a Kubernetes node, and the folder mounted here? Else correct --kubelet-socket (KUBELET_SOCKET)",
    ];
    refused(vec![a100()], elsewhere, ExitCode::Unavailable, &texts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_pod_resources_it_serves_pods_and_says_what_is_missing() {
    let node = Node::new(vec![a100()]).await;
    let mut plugin =
        node.start(|command| _ = command.arg("--pod-resources-socket").arg(node.path("nowhere.sock")));
    plugin.until_ready().await;
    let log = plugin.until_said("The kubelet does not tell who holds which devices").await;
    assert!(log.contains("Is its pod-resources folder mounted, and --pod-resources-socket right?"), "{log}");
    assert_eq!(node.visible_in("p", GPU, 1).await.len(), 1);
    assert_eq!(node.published(), None, "nothing is called free that may be in use");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let busy = |_: &Node, command: &mut Command| _ = command.arg(format!("--http-address={address}"));
    let message =
        format!("cannot listen on {address}: is another program on that port? Choose another address");
    refused(vec![a100()], busy, ExitCode::Unavailable, &[&message, "Address already in use"]).await;
}

//! etcd, kube-apiserver, kube-controller-manager and kube-schedulers: their flags, and why.
//!
//! Ports are the usual ones, since the network namespace is our own.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use crate::kubeconfig::Endpoint;
use crate::pki::Authority;
use crate::process::{Process, Program};
use crate::{isolation, prerequisites, wait_until};

/// The bridge of all pods.
pub(crate) const BRIDGE: &str = "cni0";
/// The machine's address on it, and the API server's.
pub(crate) const BRIDGE_ADDRESS: &str = "10.88.0.1";
/// Where the test process and everything else finds the API server.
const SERVER: &str = "https://127.0.0.1:443";
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";
/// Addresses of Services.
pub(crate) const SERVICES: &str = "10.96.0.0/24";
/// The API server's own address as a Service, the first of the Service range. There is no kube-proxy: the machine has this
/// address on the bridge too, and the API server listens on the Service's port, so that pods find it as they always do.
const KUBERNETES_SERVICE: &str = "10.96.0.1";
/// The file of somebody with all rights, in the state folder.
pub(crate) const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";
/// What the API server was asked by ServiceAccounts, in the folder of logs: an `audit.k8s.io/v1` Event on each line.
pub(crate) const AUDIT_LOG: &str = "audit.log";
/// Two cold cores need some ten seconds.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// A kube-scheduler's usual port; each further one takes the next.
const SCHEDULER_PORT: u16 = 10259;

/// What serves the API, running.
pub(crate) struct ControlPlane {
    pub(crate) processes: Vec<Process>,
    pub(crate) authority: Authority,
    pub(crate) endpoint: Endpoint,
    pub(crate) client: Client,
}

/// What a cluster's nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nodes {
    /// Kubelets.
    Real,
    /// API objects without kubelets: nobody tells that they live, and nobody looks after them.
    Hollow,
}

/// Folders that the processes use.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    pub(crate) state: PathBuf,
    pub(crate) programs: PathBuf,
    pub(crate) logs: PathBuf,
}

impl ControlPlane {
    /// Starts etcd and the API server, and where nodes are real the controller manager: it would evict every pod of
    /// nodes that nobody says live.
    pub(crate) async fn start(folders: &Folders, nodes: Nodes) -> Result<Self> {
        // The bridge is there before the API server, which advertises the address.
        // Its address is given: else it is the lowest of its ports', which changes when such a pod goes, and all others
        // answer to an address that nobody has until they have asked anew.
        isolation::ip(&["link", "add", BRIDGE, "address", "02:00:0a:58:00:01", "type", "bridge"])?;
        isolation::ip(&["addr", "add", &format!("{BRIDGE_ADDRESS}/16"), "dev", BRIDGE])?;
        isolation::ip(&["addr", "add", &format!("{KUBERNETES_SERVICE}/32"), "dev", BRIDGE])?;
        isolation::ip(&["link", "set", BRIDGE, "up"])?;

        let authority = Authority::create(&folders.state.join("pki"))?;
        let endpoint = Endpoint { server: SERVER.to_owned(), authority: authority.certificate() };
        let tokens = authority.token_keys()?;
        let start = |program| Process::start(program, &folders.logs, None);
        let mut processes = vec![start(etcd(folders)?)?];
        processes.push(start(api_server(folders, &authority, &tokens, nodes)?)?);

        let admin = folders.state.join(ADMIN_KUBECONFIG);
        endpoint.write_for_certificate(&admin, &authority.client("admin", "admin", &["system:masters"])?)?;
        let client = client_of(&admin).await?;
        let mut plane = Self { processes, authority, endpoint, client };
        plane.wait_ready().await?;
        if nodes == Nodes::Real {
            let manager = folders.state.join("controller-manager.kubeconfig");
            let identity =
                plane.authority.client("controller-manager", "system:kube-controller-manager", &[])?;
            plane.endpoint.write_for_certificate(&manager, &identity)?;
            let ca = plane.authority.certificate();
            plane.processes.push(start(controller_manager(folders, &manager, &tokens.private, &ca))?);
        }
        Ok(plane)
    }

    async fn wait_ready(&self) -> Result<()> {
        wait_until(READY_LIMIT, "the API server", async || {
            for process in &self.processes {
                ensure!(process.exited().is_none(), "{} ended:\n{}", process.name(), process.log_tail(20));
            }
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let answer = self.client.request_text(request).await?;
            ensure!(answer == "ok", "/readyz answers {answer}");
            Ok(())
        })
        .await
    }

    /// Waits until pods can be created in the default namespace: the API server refuses them before the
    /// controller manager has made its ServiceAccount.
    pub(crate) async fn wait_for_service_accounts(&self) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "default");
        wait_until(READY_LIMIT, "the default ServiceAccount", async || {
            accounts.get("default").await?;
            Ok(())
        })
        .await
    }

    /// Creates that ServiceAccount, where no controller manager does.
    pub(crate) async fn create_service_account(&self) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "default");
        let account: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": "default" } }))?;
        // The API server makes the namespace itself, a moment after it is ready.
        wait_until(READY_LIMIT, "the default namespace", async || {
            accounts.create(&PostParams::default(), &account).await?;
            Ok(())
        })
        .await
    }
}

/// A client for the owner of a kubeconfig file.
pub(crate) async fn client_of(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn etcd(folders: &Folders) -> Result<Program> {
    let path = prerequisites::find_program("etcd").context("there is no `etcd` (package etcd-server)")?;
    Ok(Program::new("etcd", path)
        .arg(format!("--data-dir={}", folders.state.join("etcd").display()))
        .arg(format!("--listen-client-urls={ETCD}"))
        .arg(format!("--advertise-client-urls={ETCD}"))
        .arg(format!("--listen-peer-urls={ETCD_PEERS}"))
        .arg(format!("--initial-advertise-peer-urls={ETCD_PEERS}"))
        .arg(format!("--initial-cluster=default={ETCD_PEERS}"))
        // Nothing here is worth surviving a power cut, and fsync is most of etcd's time on a slow disk.
        .arg("--unsafe-no-fsync"))
}

fn api_server(
    folders: &Folders,
    authority: &Authority,
    tokens: &crate::pki::TokenKeys,
    nodes: Nodes,
) -> Result<Program> {
    let names = ["localhost", "127.0.0.1", BRIDGE_ADDRESS, KUBERNETES_SERVICE, "kubernetes.default.svc"];
    let serving = authority.server("apiserver", &names)?;
    let kubelets = authority.client("apiserver-to-kubelet", "kube-apiserver", &["system:masters"])?;
    let ca = authority.certificate();
    let program = Program::new("kube-apiserver", folders.programs.join("kube-apiserver"))
        .arg(format!("--etcd-servers={ETCD}"))
        .arg("--secure-port=443")
        // Newer servers refuse to advertise a loopback address.
        .arg(format!("--advertise-address={BRIDGE_ADDRESS}"))
        .arg(format!("--service-cluster-ip-range={SERVICES}"))
        .arg(format!("--tls-cert-file={}", serving.certificate.display()))
        .arg(format!("--tls-private-key-file={}", serving.key.display()))
        .arg(format!("--client-ca-file={}", ca.display()))
        .arg("--anonymous-auth=false")
        .arg("--authorization-mode=Node,RBAC")
        .arg("--enable-admission-plugins=NodeRestriction")
        .arg("--allow-privileged=true")
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(format!("--service-account-signing-key-file={}", tokens.private.display()))
        .arg(format!("--service-account-key-file={}", tokens.public.display()))
        .arg(format!("--kubelet-certificate-authority={}", ca.display()))
        .arg(format!("--kubelet-client-certificate={}", kubelets.certificate.display()))
        .arg(format!("--kubelet-client-key={}", kubelets.key.display()))
        .arg("--kubelet-preferred-address-types=InternalIP")
        .arg(format!("--audit-policy-file={}", audit_policy(folders)?.display()))
        .arg(format!("--audit-log-path={}", folders.logs.join(AUDIT_LOG).display()));
    Ok(match nodes {
        Nodes::Real => program,
        // It taints each new node as not ready, and the controller that would take the taint away does not run.
        Nodes::Hollow => program.arg("--disable-admission-plugins=TaintNodesByCondition"),
    })
}

/// What is written down of requests: of ServiceAccounts outside of kube-system who asked for what, and what was said.
fn audit_policy(folders: &Folders) -> Result<PathBuf> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "None", "userGroups": ["system:serviceaccounts:kube-system"] },
            { "level": "Metadata", "userGroups": ["system:serviceaccounts"] },
            { "level": "None" },
        ],
    });
    let path = folders.state.join("audit-policy.json");
    fs::write(&path, policy.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn controller_manager(folders: &Folders, kubeconfig: &Path, signing_key: &Path, ca: &Path) -> Program {
    Program::new("kube-controller-manager", folders.programs.join("kube-controller-manager"))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--service-account-private-key-file={}", signing_key.display()))
        .arg(format!("--root-ca-file={}", ca.display()))
        // Each controller with its own ServiceAccount and rights, as in a real cluster.
        .arg("--use-service-account-credentials=true")
        // Alone here; electing a leader takes seconds.
        .arg("--leader-elect=false")
        .arg("--authentication-skip-lookup=true")
        .arg("--bind-address=127.0.0.1")
        // Its default is a folder of the host, which it would create.
        .arg(format!("--flex-volume-plugin-dir={}", folders.state.join("volume-plugins").display()))
}

/// Which of several kube-schedulers schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// This one, at once: electing a leader takes seconds.
    None,
    /// Whoever holds the Lease that its configuration names.
    AsConfigured,
}

/// The port on 127.0.0.1 where the `index`-th kube-scheduler tells of itself, over HTTPS.
pub(crate) fn scheduler_port(index: u16) -> u16 {
    SCHEDULER_PORT + index
}

/// Starts a kube-scheduler with `configuration`, a `KubeSchedulerConfiguration`.
///
/// Set in it is the kubeconfig, since it runs as a plain process; `port` is where it tells of itself.
pub(crate) fn start_scheduler(
    folders: &Folders,
    name: &str,
    port: u16,
    mut configuration: Value,
    kubeconfig: &Path,
    election: Election,
) -> Result<Process> {
    ensure!(configuration["kind"] == "KubeSchedulerConfiguration", "{name}: no KubeSchedulerConfiguration");
    configuration["clientConnection"]["kubeconfig"] = json!(kubeconfig);
    if election == Election::None {
        configuration["leaderElection"] = json!({ "leaderElect": false });
    }
    let path = folders.state.join(name).with_added_extension("json");
    fs::write(&path, serde_json::to_vec_pretty(&configuration)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let program = Program::new(name, folders.programs.join("kube-scheduler"))
        .arg(format!("--config={}", path.display()))
        .arg("--authentication-skip-lookup=true")
        // For whoever is on this machine, which is the test: asking the API server who that is would need rights.
        .arg("--authorization-always-allow-paths=/healthz,/readyz,/livez,/metrics")
        .arg("--bind-address=127.0.0.1")
        .arg(format!("--secure-port={port}"))
        .arg("--v=2");
    Process::start(program, &folders.logs, None)
}

/// The configuration of a stock kube-scheduler.
pub(crate) fn stock_scheduler_configuration() -> Value {
    json!({ "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration" })
}

/// Creates a folder that may be there already.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    match fs::create_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot create {}", path.display()))
        }
        _ => Ok(()),
    }
}

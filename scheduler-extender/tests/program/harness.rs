//! The program as a process of its own, against the API server stand-in.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use stowage_scheduler_extender::clock::Now;
use stowage_scheduler_extender::synthetic;
use stowage_stand_ins::api_server::resources::{GPU_NODES, NODES, PODS};
use stowage_stand_ins::api_server::{ApiServer, Attributes, Options, Part, User};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// How long anything may take before a test gives up on it.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// An API server with a user for the extender.
pub async fn api_server() -> ApiServer {
    let user = User {
        name: "system:serviceaccount:stowage-system:stowage-scheduler-extender".into(),
        token: "t".into(),
    };
    ApiServer::start(Options { users: vec![user], ..Options::default() }).await.unwrap()
}

/// Makes a GPU node with its GpuNode.
pub fn create_gpu_node(api: &ApiServer, name: &str) {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "status": {
            "conditions": [{ "type": "Ready", "status": "True" }],
            "allocatable": { "cpu": "8", "pods": "110", "nvidia.com/gpu": "4", "nvidia.com/mig-1g.5gb": "14", "nvidia.com/gpu.shared": "8" },
        },
    });
    let made = api.store().create(&NODES, "", node.clone()).unwrap();
    api.store()
        .modify(&NODES, "", name, Part::Status, |object| object["status"] = node["status"].clone())
        .unwrap();
    let mut status = synthetic::status(name, Vec::new(), Now::read());
    status.node_uid = made.uid().to_owned();
    let status = serde_json::to_value(status).unwrap();
    let object = json!({ "apiVersion": "stowage.dev/v1alpha1", "kind": "GpuNode", "metadata": { "name": name }, "spec": {} });
    api.store().create(&GPU_NODES, "", object).unwrap();
    api.store().modify(&GPU_NODES, "", name, Part::Status, |object| object["status"] = status).unwrap();
}

/// Makes a pod that waits for `count` of `resource`; its UID.
pub fn create_pod(api: &ApiServer, name: &str, resource: &str, count: u32) -> String {
    create_pod_that_says(api, name, resource, count, &json!({}))
}

/// The same with annotations.
pub fn create_pod_that_says(
    api: &ApiServer,
    name: &str,
    resource: &str,
    count: u32,
    annotations: &Value,
) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "annotations": annotations },
        "spec": { "schedulerName": "stowage-scheduler", "containers": [{
            "name": "main", "image": "x", "resources": {
                "limits": { resource: count.to_string() }, "requests": { resource: count.to_string() } } }] },
    });
    api.store().create(&PODS, "default", pod).unwrap().uid().to_owned()
}

/// A pod as the API server has it.
pub fn pod(api: &ApiServer, name: &str) -> Value {
    (**api.store().get(&PODS, "default", name).unwrap()).clone()
}

/// A running extender.
pub struct Extender {
    child: Child,
    pub verbs: SocketAddr,
    pub http: SocketAddr,
    log: watch::Receiver<String>,
    _kubeconfig: tempfile::NamedTempFile,
}

/// A port that was free a moment ago.
pub async fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

impl Extender {
    /// Starts one; it is not ready yet.
    pub async fn start(api: &ApiServer) -> Self {
        Self::start_at(api, free_port().await, free_port().await, &[])
    }

    /// Starts one on these addresses, with more flags.
    pub fn start_at(api: &ApiServer, verbs: SocketAddr, http: SocketAddr, flags: &[&str]) -> Self {
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(kubeconfig.path(), api.kubeconfig(Some("t"))).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_stowage-scheduler-extender"))
            .env("KUBECONFIG", kubeconfig.path())
            .arg(format!("--verb-address={verbs}"))
            .arg(format!("--http-address={http}"))
            .arg("--log-format=text")
            .args(flags)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (tell, log) = watch::channel(String::new());
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                tell.send_modify(|log| *log += &format!("{line}\n"));
            }
        });
        Self { child, verbs, http, log, _kubeconfig: kubeconfig }
    }

    /// Starts one and waits until it is ready.
    pub async fn ready(api: &ApiServer) -> Self {
        Self::ready_with(api, &[]).await
    }

    /// The same with more flags.
    pub async fn ready_with(api: &ApiServer, flags: &[&str]) -> Self {
        let mut extender = Self::start_at(api, free_port().await, free_port().await, flags);
        extender.wait_for_log("known: ready").await;
        extender
    }

    /// Waits until a text is in the log.
    pub async fn wait_for_log(&mut self, text: &str) -> String {
        let waiting = tokio::time::timeout(DEADLINE, self.log.wait_for(|log| log.contains(text)));
        let found = waiting.await.is_ok_and(|log| log.is_ok());
        let log = self.log.borrow().clone();
        assert!(found, "{text:?} did not come:\n{log}");
        log
    }

    /// The status and body of an answer of the verbs' port.
    pub async fn post(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let (status, body) = ask(self.verbs, "POST", path, body).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// The status and body of an answer of the other port.
    pub async fn get(&self, path: &str) -> (u16, String) {
        ask(self.http, "GET", path, b"").await
    }

    /// Asks for a bind; what `Error` says.
    pub async fn bind(&self, name: &str, uid: &str, node: &str) -> String {
        let args = json!({ "PodName": name, "PodNamespace": "default", "PodUID": uid, "Node": node });
        let (status, answer) = self.post("/bind", args.to_string().as_bytes()).await;
        assert_eq!(status, 200);
        answer["Error"].as_str().unwrap().to_owned()
    }

    /// The nodes where a pod that wants this fits.
    pub async fn filter(&self, resource: &str, count: u32, names: &[&str]) -> Value {
        let body = synthetic::request(resource, count, names.iter().copied());
        let (status, answer) = self.post("/filter", &body).await;
        assert_eq!(status, 200);
        answer
    }

    /// Asks it to end; its exit code.
    pub async fn terminate(mut self) -> i32 {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        self.ended().await
    }

    /// Waits for its end; its exit code.
    pub async fn ended(&mut self) -> i32 {
        let status = tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("it ends").unwrap();
        status.code().unwrap()
    }

    /// Kills it without warning.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Makes one HTTP request.
pub async fn ask(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let talk = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(DEADLINE, talk).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Asks again until it is so.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, asking).await.is_ok(), "{what} did not happen");
}

/// Verb, API group and resource.
pub type Right = (String, String, String);

/// The rights that the roles of these names give, of a file in this repository.
pub fn granted(file: &str, roles: &[&str]) -> BTreeSet<Right> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut granted = BTreeSet::new();
    let is_role = |object: &&Value| {
        object["kind"].as_str().is_some_and(|kind| kind.ends_with("Role"))
            && roles.iter().any(|name| object["metadata"]["name"] == *name)
    };
    for rule in documents.iter().filter(is_role).flat_map(|role| role["rules"].as_array().unwrap()) {
        let words = |key: &str| -> Vec<String> {
            rule[key].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        for (group, resource) in words("apiGroups")
            .iter()
            .flat_map(|g| words("resources").into_iter().map(move |r| (g.clone(), r)))
        {
            granted.extend(words("verbs").into_iter().map(|verb| (verb, group.clone(), resource.clone())));
        }
    }
    assert!(!granted.is_empty(), "{file} has none of {roles:?}");
    granted
}

/// The rights that were used.
pub fn used(api: &ApiServer) -> BTreeSet<Right> {
    let right = |a: Attributes| {
        let resource =
            if a.subresource.is_empty() { a.resource } else { format!("{}/{}", a.resource, a.subresource) };
        (a.verb, a.group, resource)
    };
    api.audit().into_iter().map(|record| right(record.attributes)).collect()
}

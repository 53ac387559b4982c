//! An API server in memory, over plain HTTP on the loopback: what `kube`'s client needs and no more.
//!
//! The demo runs whole clusters on it, and tests meet conflicts, expired watches and lost answers
//! with it that a real server gives only by luck. It is held to the real one by a script of requests
//! that both answer alike (`tests/common/api_server_script`).
//!
//! ```text
//!   client ──HTTP──► http ──┐
//!                           ├──► store ──► rules, patch (pure: object in, object out)
//!   driver ─────────────────┘      │
//!                                  └──► collection: objects + bounded history ──► watches
//! ```
//!
//! What it does not know: authorization, admission (nothing of a ServiceAccount, a priority class or
//! a policy), schemas, garbage collection by owner, controllers of any kind, protobuf, YAML bodies,
//! HTTP/2 and TLS. `rules` and `patch` say what each of them leaves out.

mod audit;
mod error;
mod fault;
mod http;
mod object;
mod options;
mod patch;
pub mod resources;
mod rules;
mod selector;
mod store;

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::audit::{Attributes, AuditRecord};
pub use self::error::ApiError;
pub use self::fault::{Fault, FaultHook};
pub use self::object::Object;
pub use self::options::{Options, User};
pub use self::patch::{ApplyConfig, Patch};
pub use self::resources::{Gvr, ResourceType};
pub use self::store::{
    DeleteOptions, Deleted, List, ListOptions, Part, Store, StoreOptions, VersionMatch, Watch, WatchEvent,
    WatchOptions,
};

use self::http::Shared;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("the API server stand-in cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running server. It stops when dropped.
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<std::convert::Infallible>,
}

impl ApiServer {
    /// Starts a server; when this returns, clients can connect.
    ///
    /// # Errors
    /// [`StartError::Listen`] for an address in use.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let Options { address, users, store_options, store, git_version } = options;
        let listen = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let shared = Arc::new(Shared {
            store: store.unwrap_or_else(|| Store::new(store_options)),
            users,
            audit: audit::AuditLog::default(),
            faults: fault::Faults::default(),
            watches: watch::Sender::new(0),
            git_version,
        });
        let serving = tokio::spawn(http::serve(listener, shared.clone()));
        Ok(Self { address, shared, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a URL without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig for this server: JSON, which is YAML. `token` is one of the users', or `None`.
    pub fn kubeconfig(&self, token: Option<&str>) -> String {
        let user = token.map_or_else(|| json!({}), |token| json!({ "token": token }));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "stand-in", "cluster": { "server": self.url() } }],
            "users": [{ "name": "user", "user": user }],
            "contexts": [{
                "name": "stand-in",
                "context": { "cluster": "stand-in", "user": "user", "namespace": "default" },
            }],
            "current-context": "stand-in",
        });
        config.to_string()
    }

    /// The objects, without HTTP, users, faults and audit.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The requests so far, oldest first; only the newest 100,000 are kept.
    pub fn audit(&self) -> Vec<AuditRecord> {
        self.shared.audit.records()
    }

    /// Forgets the requests so far.
    pub fn clear_audit(&self) {
        self.shared.audit.clear();
    }

    /// Puts a fault hook in place of the one before, or takes it away.
    pub fn set_fault(&self, hook: Option<FaultHook>) {
        self.shared.faults.set(hook);
    }

    /// Ends every watch that clients have open, as a restart of a real server's replica does.
    pub fn close_watches(&self) {
        self.shared.watches.send_modify(|count| *count += 1);
    }

    /// Stops: every connection is closed and the port is free again when this returns. The store
    /// lives on in its clones.
    pub async fn stop(mut self) {
        self.serving.abort();
        // What it ends with is the abort that was asked for.
        let _ = (&mut self.serving).await;
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

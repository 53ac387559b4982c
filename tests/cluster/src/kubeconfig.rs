//! Writing kubeconfig files: who talks to the API server, and as whom.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::pki::Identity;

/// Where the API server is, and which authority vouches for it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) server: String,
    pub(crate) authority: PathBuf,
}

impl Endpoint {
    /// Writes a kubeconfig for the owner of a client certificate.
    pub(crate) fn write_for_certificate(&self, path: &Path, identity: &Identity) -> Result<()> {
        let user = json!({ "client-certificate": identity.certificate, "client-key": identity.key });
        self.write(path, user)
    }

    /// Writes a kubeconfig for the bearer of a token.
    pub(crate) fn write_for_token(&self, path: &Path, token: &str, namespace: &str) -> Result<()> {
        self.write_in_namespace(path, json!({ "token": token }), namespace)
    }

    fn write(&self, path: &Path, user: Value) -> Result<()> {
        self.write_in_namespace(path, user, "default")
    }

    fn write_in_namespace(&self, path: &Path, user: Value, namespace: &str) -> Result<()> {
        let cluster = json!({ "server": self.server, "certificate-authority": self.authority });
        // JSON is YAML, as far as any reader of kubeconfigs is concerned.
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [{ "name": "user", "user": user }],
            "contexts": [{
                "name": "test",
                "context": { "cluster": "test", "user": "user", "namespace": namespace },
            }],
            "current-context": "test",
        });
        fs::write(path, serde_json::to_vec_pretty(&kubeconfig)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

//! Which cluster, with whose rights, and which namespace: as kubectl finds them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// kubectl's own flags.
#[derive(Args, Debug, Clone, Default)]
pub struct Connection {
    /// The kubeconfig file to use, instead of $KUBECONFIG or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace of the pods that are asked about, instead of the context's.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Asks about pods of all namespaces.
    #[arg(short = 'A', long, global = true, conflicts_with = "namespace")]
    pub all_namespaces: bool,
}

/// A client and the namespace that is meant where none is named.
pub struct Connected {
    /// The client.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Where there is no kubeconfig, no such context, or what the context says cannot be used.
    pub async fn connect(&self) -> Result<Connected> {
        let file = self.kubeconfig.as_ref().map(|path| {
            Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))
        });
        let config = match (file.transpose()?, &self.context) {
            (None, None) => Config::infer()
                .await
                .context("no cluster: set KUBECONFIG, or use --kubeconfig or --context")?,
            (file, context) => {
                let file = match file {
                    Some(file) => file,
                    None => Kubeconfig::read().context("cannot read the kubeconfig")?,
                };
                let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
                let which =
                    context.as_deref().map_or("the current context".to_owned(), |c| format!("context {c:?}"));
                Config::from_custom_kubeconfig(file, &options)
                    .await
                    .with_context(|| format!("cannot use {which} of the kubeconfig"))?
            }
        };
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("cannot make a client for the cluster")?;
        Ok(Connected { client, namespace })
    }
}

//! kube-scheduler and the extender beside it, in the setups that are compared.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use kube::{Client, Config};
use serde_json::{Value, json};
use stowage_cluster_tests::{Cluster, Election, Process, Program, Scheduler, TokenBoundTo, apply};
use stowage_shared::contract::SCHEDULER_NAME;

use crate::cluster::deploy;
use crate::figures::{self, Metrics};

/// Long enough for a scheduler to read twenty thousand pods on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(120);
const TOKEN_TTL: Duration = Duration::from_secs(6 * 3600);
/// The port of the first pair's verbs; what it tells of itself is on the next, and each pair takes the next two.
const FIRST_PORT: u16 = 9412;
const SYSTEM: &str = "stowage-system";
/// Calls a second that kube-scheduler may make: no limit to speak of. Its default is 50.
const QPS: u32 = 5000;

/// What schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Setup {
    /// A stock kube-scheduler: no extender, and it looks at as many nodes as it likes.
    Stock,
    /// The same with an extender that does nothing.
    DoNothing,
    /// Stowage, as `deploy/` configures it: kube-scheduler shows it every node.
    Stowage,
    /// Stowage, which nominates waiting pods ahead.
    Nominate,
}

impl Setup {
    /// As it is called in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Stock => "no extender, a sample of the nodes",
            Self::DoNothing => "do-nothing extender, a sample of the nodes",
            Self::Stowage => "Stowage, every node",
            Self::Nominate => "Stowage, every node, nominates ahead",
        }
    }
}

/// The programs to start.
#[derive(Debug, Clone)]
pub struct Built {
    /// The extender.
    pub extender: PathBuf,
    /// The extender that does nothing: a program that takes `--address`, and arguments that go before it.
    pub do_nothing: (PathBuf, Vec<String>),
}

impl Built {
    /// What was built beside this program, in the same profile; or another extender.
    ///
    /// # Errors
    /// What is missing.
    pub fn find(extender: Option<PathBuf>) -> Result<Self> {
        let own = std::env::current_exe()?;
        let folder = own.ancestors().find(|folder| folder.ends_with("debug") || folder.ends_with("release"));
        let folder = folder.context("this program is outside a target folder")?;
        let built = |path: PathBuf| {
            path.canonicalize().with_context(|| format!("{} is missing: build it first", path.display()))
        };
        Ok(Self {
            extender: built(extender.unwrap_or_else(|| folder.join("stowage-scheduler-extender")))?,
            do_nothing: (built(folder.join("stowage-scale"))?, vec!["do-nothing".to_owned()]),
        })
    }
}

/// A kube-scheduler and its extender.
#[derive(Debug)]
pub struct Pair {
    /// The kube-scheduler.
    pub scheduler: Scheduler,
    /// The extender, if there is one.
    pub extender: Option<Process>,
    told: Option<SocketAddr>,
}

impl Pair {
    /// Starts a setup and waits until it has read the cluster. `index` tells the ports of one pair from those of another;
    /// with an election, the pair schedules as soon as it holds the Lease.
    ///
    /// # Errors
    /// What is not ready, with the ends of its log.
    pub async fn start(
        cluster: &Cluster,
        built: &Built,
        setup: Setup,
        index: u16,
        election: Election,
    ) -> Result<Self> {
        let verbs = address(index, 0);
        let told = address(index, 1);
        let name = format!("extender-{index}");
        let program = match setup {
            Setup::Stock => None,
            Setup::DoNothing => {
                let (path, arguments) = &built.do_nothing;
                Some(Program::new(name, path).args(arguments).args(["--address", &verbs.to_string()]))
            }
            Setup::Stowage | Setup::Nominate => {
                if setup == Setup::Nominate {
                    rights_to_nominate(cluster).await?;
                }
                let kubeconfig = account(cluster, "stowage-scheduler-extender").await?;
                let program = Program::new(name, &built.extender)
                    .args(["--verb-address", &verbs.to_string(), "--http-address", &told.to_string()])
                    .env("KUBECONFIG", kubeconfig);
                Some(if setup == Setup::Nominate { program.arg("--nominate") } else { program })
            }
        };
        let extender = program.map(|program| cluster.start_program(program)).transpose()?;
        let told = matches!(setup, Setup::Stowage | Setup::Nominate).then_some(told);
        if let (Some(extender), Some(told)) = (&extender, told) {
            ready(cluster, &[extender], "the extender", async || {
                figures::http_get(told, "/readyz").await.map(drop)
            })
            .await?;
        }
        let alone = matches!(election, Election::None);
        let kubeconfig = account(cluster, "stowage-kube-scheduler").await?;
        let configuration = configuration(setup, verbs)?;
        let name = format!("kube-scheduler-{index}");
        let scheduler = cluster.start_scheduler_with(&name, configuration, &kubeconfig, election)?;
        let pair = Self { scheduler, extender, told };
        ready(cluster, &[&pair.scheduler.process], "kube-scheduler", async || {
            pair.ask_scheduler("/readyz").await.map(drop)
        })
        .await?;
        if setup == Setup::Nominate && alone {
            // Where one before it was killed, its Lease has to end first.
            let extender: Vec<&Process> = pair.extender.iter().collect();
            ready(cluster, &extender, "the extender's planner", async || {
                let leads = pair.extender_metrics().await?.sum("stowage_scheduler_extender_leader", &[]);
                ensure!(leads == 1.0, "another holds the Lease");
                Ok(())
            })
            .await?;
        }
        Ok(pair)
    }

    /// What kube-scheduler counts.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn scheduler_metrics(&self) -> Result<Metrics> {
        self.ask_scheduler("/metrics").await.map(Metrics::new)
    }

    /// What our extender counts; nothing where there is none.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn extender_metrics(&self) -> Result<Metrics> {
        match self.told {
            Some(address) => figures::http_get(address, "/metrics").await.map(Metrics::new),
            None => Ok(Metrics::default()),
        }
    }

    /// Kills both at once (SIGKILL).
    ///
    /// # Errors
    /// When one cannot be killed.
    pub fn kill(&self) -> Result<()> {
        self.scheduler.process.kill()?;
        self.extender.as_ref().map(Process::kill).transpose()?;
        Ok(())
    }

    async fn ask_scheduler(&self, path: &str) -> Result<String> {
        let mut config = Config::new(format!("https://127.0.0.1:{}", self.scheduler.port).parse()?);
        // A certificate of its own making, which nobody signed.
        config.accept_invalid_certs = true;
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(Client::try_from(config)?.request_text(request).await?)
    }
}

/// What the extender may do for `--nominate` only.
async fn rights_to_nominate(cluster: &Cluster) -> Result<()> {
    for option in ["lease.yaml", "nominate.yaml"] {
        cluster.apply(apply::read_manifests(&deploy().join("options").join(option))?).await?;
    }
    Ok(())
}

fn address(index: u16, nth: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT + 2 * index + nth))
}

async fn account(cluster: &Cluster, name: &str) -> Result<PathBuf> {
    cluster.service_account_kubeconfig(SYSTEM, name, TOKEN_TTL, TokenBoundTo::Nothing).await
}

async fn ready(
    cluster: &Cluster,
    processes: &[&Process],
    what: &str,
    look: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    cluster.wait_until(READY_LIMIT, &format!("{what} to be ready"), processes, look).await
}

/// The scheduler's configuration for a setup whose extender listens at `verbs`.
fn configuration(setup: Setup, verbs: SocketAddr) -> Result<Value> {
    let mut configuration = match setup {
        Setup::Stock | Setup::DoNothing => json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "profiles": [{"schedulerName": SCHEDULER_NAME}],
        }),
        Setup::Stowage | Setup::Nominate => deployed(&deploy())?,
    };
    if setup == Setup::DoNothing {
        configuration["extenders"] = json!([{
            "filterVerb": "filter",
            "prioritizeVerb": "prioritize",
            "weight": 1,
            "nodeCacheCapable": true,
            "httpTimeout": "30s",
        }]);
    }
    if setup != Setup::Stock {
        configuration["extenders"][0]["urlPrefix"] = json!(format!("http://{verbs}"));
    }
    configuration["clientConnection"]["qps"] = json!(QPS);
    configuration["clientConnection"]["burst"] = json!(QPS);
    Ok(configuration)
}

fn deployed(deploy: &Path) -> Result<Value> {
    let documents = apply::read_manifests(&deploy.join("scheduler/kube-scheduler-config.yaml"))?;
    documents.into_iter().next().context("deploy/scheduler/kube-scheduler-config.yaml is empty")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn our_setups_have_the_configuration_that_is_deployed_but_for_the_address_and_the_pace() {
        let at: SocketAddr = "127.0.0.1:1234".parse().unwrap();
        let mut ours = configuration(Setup::Stowage, at).unwrap();
        let deployed = deployed(&deploy()).unwrap();
        assert_eq!(ours["extenders"][0]["urlPrefix"], "http://127.0.0.1:1234");
        ours["extenders"][0]["urlPrefix"] = deployed["extenders"][0]["urlPrefix"].clone();
        ours.as_object_mut().unwrap().remove("clientConnection");
        assert_eq!(ours, deployed);
    }

    #[test]
    fn a_stock_scheduler_asks_nobody() {
        let configuration = configuration(Setup::Stock, address(0, 0)).unwrap();
        assert_eq!(configuration.get("extenders"), None);
        assert_eq!(configuration.get("percentageOfNodesToScore"), None);
    }
}

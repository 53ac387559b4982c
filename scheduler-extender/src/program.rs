//! The program: it opens its ports, starts the watches, serves, and ends when it is asked to or when a part of
//! it fails.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Parser;
use futures::TryFutureExt;
use ops::Fault;
use ops::logs::LogArgs;
use prometheus_client::registry::Registry;
use stowage_shared::contract::{EXTENDER_HTTP_PORT, EXTENDER_VERB_PORT, SCHEDULER_NAME, SHUTDOWN_GRACE};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::ahead::{Ahead, AheadArgs};
use crate::binding::Binder;
use crate::clock::Now;
use crate::health::{Progress, Readiness};
use crate::metrics::Metrics;
use crate::page::{self, MapArgs, Page};
use crate::schedulers;
use crate::server::Server;
use crate::state::Store;
use crate::stock::Stock;
use crate::tls::{Tls, TlsArgs};
use crate::verbs::Verbs;
use crate::watch::{self, Feed};

/// How often held devices are looked through for those whose time is over, and stock is taken for metrics.
const TICK: Duration = Duration::from_secs(1);
/// How often it is looked how much of all GPUs is in use and why pods wait.
const STOCK: Duration = Duration::from_secs(10);
/// Of the time to end, what is kept for ending itself.
const ENDING: Duration = Duration::from_millis(200);

/// Filters, ranks and binds GPU pods for kube-scheduler, with the devices planned.
#[derive(Debug, Clone, Parser)]
#[command(name = "stowage-scheduler-extender", version)]
pub struct Args {
    /// Where kube-scheduler finds the verbs. Without TLS, leave it on the loopback.
    #[arg(long, env = "VERB_ADDRESS", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, EXTENDER_VERB_PORT)))]
    pub verb_address: SocketAddr,
    /// TLS for the verbs.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Whose pods are bound: the schedulerName of each profile of the kube-scheduler that asks, with commas between.
    #[arg(long, env = "SCHEDULER_NAMES", value_delimiter = ',', default_value = SCHEDULER_NAME)]
    pub scheduler_names: Vec<String>,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "HTTP_ADDRESS", default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, EXTENDER_HTTP_PORT)))]
    pub http_address: SocketAddr,
    /// The map.
    #[command(flatten)]
    pub map: MapArgs,
    /// What is done without being asked.
    #[command(flatten)]
    pub ahead: AheadArgs,
    /// Logs.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// Runs until SIGTERM, SIGINT, or the end of a part that should not end.
///
/// # Errors
/// [`Fault`]: what ended it, with the exit code.
pub async fn run(args: Args) -> Result<(), Fault> {
    let terminated = ops::signal::terminated();
    let tls = match args.tls.files().map_err(Fault::config)? {
        Some(files) => Some(Tls::load(files).map_err(Fault::config)?),
        None => None,
    };
    schedulers::serve(&args.scheduler_names);
    let verb_listener = ops::listen::bind(args.verb_address).await?;
    let http_listener = ops::listen::bind(args.http_address).await?;
    let map_address = args.map.map_address;
    let map_listener = match map_address.0 {
        Some(address) => Some(ops::listen::bind(address).await?),
        None => None,
    };
    if tls.is_none() && !args.verb_address.ip().is_loopback() {
        tracing::warn!(
            verb_address = %args.verb_address,
            "The verbs are served to others than this machine, without TLS: whoever reaches them binds pods."
        );
    }
    let client = ops::kubernetes::client().await?;

    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::new(&mut registry));
    let stock = Stock::new(&mut registry);
    let store = Arc::new(Store::default());
    let progress = Arc::new(Progress::default());
    let feed = Feed { store: store.clone(), progress: progress.clone(), metrics: metrics.clone() };

    let mut parts: JoinSet<Result<(), Fault>> = JoinSet::new();
    let ahead = Ahead::start(&args.ahead, &client, &feed, &mut parts);
    if !args.ahead.plans() {
        parts.spawn(watch::pods(client.clone(), feed.clone()).map_err(Fault::software));
        parts.spawn(watch::nodes(client.clone(), feed.clone()).map_err(Fault::software));
    }
    parts.spawn(watch::gpu_nodes(client.clone(), feed).map_err(Fault::software));
    parts.spawn(tick(store.clone(), metrics.clone()));
    parts.spawn(take_stock(store.clone(), stock));
    if let Some(listener) = map_listener {
        let page = Page::new(store.clone(), client.clone(), &listener)?;
        parts.spawn(page::serve(listener, page));
    }
    if let Some(tls) = tls.clone() {
        parts.spawn(tls.keep_fresh(metrics.clone()));
    }
    // Beside a kube-scheduler whoever is asked answers, leader or not.
    let leads = ahead.as_ref().filter(|_| args.ahead.leader_elect).map(Ahead::held);
    let health = Arc::new(Readiness { progress, leads: leads.clone() });
    parts.spawn(async move {
        ops::http::serve(&http_listener, health, Arc::new(registry)).await;
        Ok(())
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server {
        verbs: Arc::new(Verbs::new(store.clone())),
        binder: Binder::new(client, store, metrics.clone()),
        metrics,
        tls,
        leads,
        rush: ahead.as_ref().and_then(Ahead::rush),
    };
    let stopped = async {
        // Dropped or sent, it means the same.
        let _ = stopped.await;
    };
    let mut serving =
        tokio::spawn(server.serve(verb_listener, stopped, SHUTDOWN_GRACE.saturating_sub(ENDING)));
    tracing::info!(verb_address = %args.verb_address, http_address = %args.http_address, %map_address, "Started.");

    let result = tokio::select! {
        () = terminated => Ok(()),
        part = parts.join_next() => Err(unexpected(part)),
        served = &mut serving => Err(Fault::software(anyhow!("the verbs' server ended: {served:?}"))),
    };
    drop(stop);
    if result.is_ok() {
        // Its own grace is the bound.
        let _ = serving.await;
        if let Some(ahead) = ahead {
            ahead.stop().await;
        }
    }
    result
}

/// A part that ends takes the process with it: half an extender would answer from a frozen cache.
fn unexpected(part: Option<Result<Result<(), Fault>, tokio::task::JoinError>>) -> Fault {
    match part {
        Some(Ok(Err(fault))) => fault,
        Some(Ok(Ok(()))) => Fault::software(anyhow!("a part of the extender ended")),
        Some(Err(panic)) => Fault::software(anyhow!("a part of the extender failed: {panic}")),
        None => Fault::software(anyhow!("no part of the extender runs")),
    }
}

/// What time itself changes.
async fn tick(store: Arc<Store>, metrics: Arc<Metrics>) -> Result<(), Fault> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let change = store.change(|state| {
            state.expire(Now::read());
            metrics.state(state);
        });
        change.map_err(Fault::software)?;
        metrics.nodes(&store.snapshot(), Instant::now());
    }
}

/// What only metrics want to know.
async fn take_stock(store: Arc<Store>, stock: Stock) -> Result<(), Fault> {
    let mut ticks = tokio::time::interval(STOCK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let waiting = store.change(|state| state.waiting()).map_err(Fault::software)?;
        stock.take(&store.snapshot(), &waiting, Instant::now());
    }
}

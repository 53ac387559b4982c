//! A Lease: of several replicas, one alone plans ahead.
//!
//! filter, prioritize and bind need none: kube-scheduler's own leader decides who is asked. What does work on its own
//! accord (nominations, preemption, deletion costs) is done by the holder of this Lease. [`core`] decides; this module
//! reads and writes the object, and tells whoever asks whether it is held at that moment.

pub mod core;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use ops::chain;

use self::core::{Elector, Record, Step, Timing};
use crate::clock::Now;
use crate::metrics::Metrics;
use crate::seldom::Seldom;

/// How long one read and one write of the Lease may take together.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the same complaint is logged at most.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// Whether the Lease is held, for those who work under it.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<Mutex<Option<Instant>>>);

impl Held {
    /// Whether it is held now.
    pub fn now(&self) -> bool {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> bool {
        self.lock().is_some_and(|until| now < until)
    }

    /// For tests and for those who need no Lease: held for ever.
    pub fn always() -> Self {
        let held = Self::default();
        *held.lock() = Some(Instant::now() + Duration::from_secs(u32::MAX.into()));
        held
    }

    fn set(&self, until: Option<Instant>) {
        *self.lock() = until;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // One assignment, so a panic leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seeks a Lease and keeps it.
pub struct Lease {
    api: Api<LeaseObject>,
    name: String,
    identity: String,
    elector: Elector,
    held: Held,
    metrics: Arc<Metrics>,
    complaint: Seldom,
}

impl Lease {
    /// Seeks the Lease of that name, as `identity`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String, metrics: Arc<Metrics>) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            elector: Elector::new(identity.clone(), Timing::DEFAULT),
            identity,
            held: Held::default(),
            metrics,
            complaint: Seldom::every(COMPLAINT_EVERY),
        }
    }

    /// Whether it is held, for those who work under it.
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Seeks and keeps it until `stop` resolves; then gives it back, so that another begins at once.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let asked = Now::read();
            let round = tokio::time::timeout(CALL_TIMEOUT, self.round(asked));
            let done = tokio::select! {
                done = round => done.unwrap_or_else(|_| Err(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
                () = &mut stop => break,
            };
            self.tell(done.err());
            tokio::select! {
                () = tokio::time::sleep(Timing::DEFAULT.retry) => {}
                () = &mut stop => break,
            }
        }
        self.give_back().await;
    }

    /// One look at the Lease, and what follows from it.
    async fn round(&mut self, asked: Now) -> Result<(), String> {
        let text = |error: kube::Error| chain(&error);
        let read = self.api.get_opt(&self.name).await.map_err(text)?;
        let record = read.as_ref().map(record);
        let (write, record) = match self.elector.step(record.as_ref(), asked) {
            Step::Wait => return Ok(()),
            Step::Create(record) => {
                let object = object(&self.name, None, &record);
                (self.api.create(&PostParams::default(), &object).await, record)
            }
            Step::Update(record) => {
                let object = object(&self.name, read.map(|read| read.metadata), &record);
                (self.api.replace(&self.name, &PostParams::default(), &object).await, record)
            }
        };
        match write {
            Ok(_) => {
                self.elector.written(record, asked.monotonic);
                Ok(())
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(text(error)),
        }
    }

    /// Tells those who work under it, and the log, what changed.
    fn tell(&self, error: Option<String>) {
        let now = Instant::now();
        let (before, until) = (self.held.at(now), self.elector.held_until(now));
        self.held.set(until);
        self.metrics.leader(until.is_some());
        match (before, until.is_some()) {
            (false, true) => {
                tracing::info!(lease = self.name, identity = self.identity, "The Lease is ours: planning.")
            }
            (true, false) => tracing::warn!(lease = self.name, "The Lease is ours no longer: another plans."),
            _ => {}
        }
        if let Some(error) = error
            && self.complaint.now()
        {
            tracing::warn!(
                lease = self.name,
                error,
                "The Lease cannot be read or written; is deploy/options/lease.yaml applied?"
            );
        }
    }

    async fn give_back(mut self) {
        self.held.set(None);
        let Some(record) = self.elector.release(Now::read()) else { return };
        let released = async {
            let read = self.api.get(&self.name).await?;
            if read.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(&self.identity) {
                let object = object(&self.name, Some(read.metadata), &record);
                self.api.replace(&self.name, &PostParams::default(), &object).await?;
            }
            Ok::<(), kube::Error>(())
        };
        // Who cannot give it back leaves it to run out.
        if let Ok(Err(error)) = tokio::time::timeout(CALL_TIMEOUT, released).await {
            tracing::debug!(error = chain(&error), "The Lease could not be given back.");
        }
    }
}

/// A name that no other process has: the host's, for people, and a random part.
pub fn identity() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let (host, random) = (read("/proc/sys/kernel/hostname"), read("/proc/sys/kernel/random/uuid"));
    let random =
        if random.is_empty() { format!("{}-{}", std::process::id(), Timestamp::now()) } else { random };
    format!("{host}_{random}")
}

fn record(object: &LeaseObject) -> Record {
    let spec = object.spec.clone().unwrap_or_default();
    let number = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    let time = |time: Option<MicroTime>| time.map(|time| time.0);
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration_seconds: number(spec.lease_duration_seconds),
        acquired: time(spec.acquire_time),
        renewed: time(spec.renew_time),
        transitions: number(spec.lease_transitions),
        version: object.metadata.resource_version.clone().unwrap_or_default(),
    }
}

/// The object with a record in it. `metadata` is what was read: its resourceVersion makes the write fail if somebody
/// wrote since.
fn object(name: &str, metadata: Option<ObjectMeta>, record: &Record) -> LeaseObject {
    let metadata =
        metadata.unwrap_or_else(|| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() });
    let number = |number: u32| Some(i32::try_from(number).unwrap_or(i32::MAX));
    let spec = LeaseSpec {
        holder_identity: Some(record.holder.clone()),
        lease_duration_seconds: number(record.duration_seconds),
        acquire_time: record.acquired.map(MicroTime),
        renew_time: record.renewed.map(MicroTime),
        lease_transitions: number(record.transitions),
        ..LeaseSpec::default()
    };
    LeaseObject { metadata, spec: Some(spec) }
}

//! Two kube-schedulers, each with an extender of its own beside it.
//!
//! With a leader, one pair works and the other takes over. Without one both work at once, as around a Lease that is
//! lost: a Lease is no fence. Then plans may collide, and what must hold is that no pod is bound twice and that the
//! nodes' books give no device to two.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use stowage_cluster_tests::{Election, Scenario, scenarios};
use stowage_scale::programs::{Pair, Setup};
use stowage_scale::{cluster, fill, shapes};
use stowage_shared::audit::Kind;

use super::Stage;

/// Pods of each wave.
const WAVE: usize = 60;
/// Pods that two pairs fight over.
const FOUGHT_OVER: usize = 200;

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![
        the_other_pair_takes_over_when_the_leader_and_its_extender_are_killed,
        two_extenders_at_once_bind_each_pod_once_and_no_device_is_given_to_two,
    ]
}

/// Bindings that the API server has answered, by status code.
async fn bindings(stage: &Stage) -> Result<BTreeMap<u16, u64>> {
    let metrics = cluster::metrics(&stage.cluster).await?;
    let mut answered = BTreeMap::new();
    for code in [200, 201, 404, 409, 422, 500] {
        let labels = ["subresource=\"binding\"", "verb=\"POST\"", &format!("code=\"{code}\"")];
        // Counters of requests are whole and small.
        answered.insert(code, metrics.sum("apiserver_request_total", &labels) as u64);
    }
    Ok(answered)
}

async fn create(stage: &Stage, wave: &str, count: usize) -> Result<()> {
    fill::pods(&stage.cluster.client(), (0..count).map(|n| shapes::mixed_pod(wave, n))).await
}

async fn the_other_pair_takes_over_when_the_leader_and_its_extender_are_killed(
    stage: &mut Stage,
) -> Result<()> {
    stage.fresh().await?;
    let before = bindings(stage).await?;
    // Alone, so it leads.
    let leader = Pair::start(&stage.cluster, &stage.built, Setup::Stowage, 0, Election::AsConfigured).await?;
    create(stage, "led", WAVE).await?;
    stage.all_bound(WAVE).await?;
    let follower =
        Pair::start(&stage.cluster, &stage.built, Setup::Stowage, 1, Election::AsConfigured).await?;

    // Killed in the middle of a wave.
    create(stage, "midst", WAVE).await?;
    leader.kill()?;
    let killed = Instant::now();
    create(stage, "after", WAVE).await?;
    let first = stage.hollow.wait(super::LIMIT, "the first pod after the kill to be bound", |state| {
        let after = |(name, _): &(&String, &_)| name.starts_with("after");
        let bound = state.record.fates.iter().filter(after).any(|(_, fate)| fate.node.is_some());
        ensure!(bound, "none is");
        Ok(Instant::now())
    });
    let took = first.await?.duration_since(killed);
    eprintln!("(the first pod was bound {:.1} s after its scheduler was killed)", took.as_secs_f64());
    stage.all_bound(3 * WAVE).await?;
    ensure!(follower.scheduler.process.exited().is_none(), "the second kube-scheduler ended");

    let after = bindings(stage).await?;
    let made = after[&201] - before[&201];
    // A Binding whose extender was killed before the answer came counts as no success, although the pod may be bound by it.
    let given_up = cluster::metrics(&stage.cluster).await?;
    let given_up = given_up.sum("apiserver_request_aborts_total", &["subresource=\"binding\""]) as u64;
    eprintln!(
        "({made} Bindings were answered for {} pods, {given_up} were given up by their client)",
        3 * WAVE
    );
    ensure!(made <= 3 * WAVE as u64, "{made} Bindings for {} pods: {after:?}", 3 * WAVE);
    {
        let state = stage.hollow.state();
        ensure!(state.record.bound_twice == 0, "{} pods were bound twice", state.record.bound_twice);
        let surprises = state.surprises.join("\n");
        ensure!(surprises.is_empty(), "a device was planned twice: {:?}\n{surprises}", state.counts);
    }
    stage.audit_is_clean().await
}

async fn two_extenders_at_once_bind_each_pod_once_and_no_device_is_given_to_two(
    stage: &mut Stage,
) -> Result<()> {
    stage.fresh().await?;
    let before = bindings(stage).await?;
    let one = Pair::start(&stage.cluster, &stage.built, Setup::Stowage, 0, Election::None).await?;
    let two = Pair::start(&stage.cluster, &stage.built, Setup::Stowage, 1, Election::None).await?;
    create(stage, "fought", FOUGHT_OVER).await?;
    stage.all_bound(FOUGHT_OVER).await?;

    let after = bindings(stage).await?;
    let made = after[&201] - before[&201];
    ensure!(made == FOUGHT_OVER as u64, "{made} Bindings for {FOUGHT_OVER} pods: {after:?}");
    // A promise that was broken is told; nobody has what another has.
    let told = [Kind::DoublePlan, Kind::Drift, Kind::Leak, Kind::Overcommit];
    let findings = stage.audit_finds_only(|finding| told.contains(&finding.kind)).await?;
    let of = |kind| findings.iter().filter(|finding| finding.kind == kind).count();
    let counts = stage.hollow.state().counts;
    eprintln!(
        "({} Bindings refused; {} pods got other devices than promised, {} none; the audit finds {} devices planned \
         twice and {} drifts)",
        after[&409] - before[&409],
        counts.otherwise,
        counts.not_admitted,
        of(Kind::DoublePlan),
        of(Kind::Drift),
    );
    ensure!(stage.hollow.state().record.bound_twice == 0, "pods were bound twice");
    drop((one, two));
    Ok(())
}

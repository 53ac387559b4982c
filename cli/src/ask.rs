//! From a question to its answer.

use std::io::{Read, stdin};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::try_join;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde::Serialize;
use stowage_shared::audit::Severity;

use crate::answer::Answer;
use crate::connect::Connected;
use crate::flags::{Cli, Defrag, Question};
use crate::objects::{self, Objects};
use crate::page::{Page, Tone, printable};
use crate::schedulers::Schedulers;
use crate::world::World;
use crate::{advise, defrag, doctor, explain, map, nodes, what_if};

/// Asks the cluster.
///
/// # Errors
/// Where the cluster cannot be read, or the question cannot be answered.
pub async fn ask(cli: &Cli, connected: &Connected, now: Timestamp) -> Result<Answer> {
    let Connected { client, namespace } = connected;
    let schedulers = &cli.schedulers;
    let all = cli.connection.all_namespaces;
    match &cli.question {
        Question::Map => map::map(&objects::gpu_nodes(client).await?, now),
        Question::Nodes => nodes::nodes(&world(client, now, schedulers).await?),
        Question::Explain { pod } => {
            let namespace = (!all).then_some(namespace.as_str());
            explain::explain(&world(client, now, schedulers).await?, namespace, pod)
        }
        Question::WhatIf { filename } => {
            // Read before the cluster is asked: a mistake in the file needs no cluster.
            let pods = filename.iter().map(|path| pods(path, namespace)).collect::<Result<Vec<_>>>()?;
            what_if::what_if(&world(client, now, schedulers).await?, pods.concat())
        }
        Question::Advise(flags) => {
            advise::advise(&world(client, now, schedulers).await?, &advise::Need::of(flags))
        }
        Question::Defrag(flags) => defrag(flags, connected, now, schedulers).await,
        Question::Doctor => doctor::doctor(&doctor::Evidence::read(client, now, schedulers).await?),
        Question::Audit => audit(&world(client, now, schedulers).await?),
        Question::Completion { .. }
        | Question::Complete { .. }
        | Question::Simulate(_)
        | Question::Top(_) => {
            bail!("this is no question")
        }
    }
}

async fn defrag(
    flags: &Defrag,
    connected: &Connected,
    now: Timestamp,
    schedulers: &Schedulers,
) -> Result<Answer> {
    let Connected { client, namespace } = connected;
    let options = defrag::Options {
        max_moves: usize::from(flags.max_moves),
        lets_in: flags.r#for.as_ref().map(|pod| (namespace.clone(), pod.clone())),
        stateful_sets: flags.stateful_sets,
        timeout: Duration::from_secs(flags.timeout.into()),
    };
    if flags.apply {
        // It takes minutes: each eviction is told as it happens, beside the answer.
        let mut tell = |line: String| eprintln!("{}", printable(&line));
        let done =
            defrag::apply(&mut defrag::Live::new(client.clone(), schedulers.clone()), &options, &mut tell)
                .await?;
        return defrag::report(&done);
    }
    let (world, budgets) = try_join!(world(client, now, schedulers), defrag::budgets(client))?;
    defrag::dry_run(&world, &budgets, &options)
}

async fn world(client: &Client, now: Timestamp, schedulers: &Schedulers) -> Result<World> {
    Ok(World::of(&Objects::read(client, now).await?, schedulers))
}

/// The pods of a file, or of standard input.
fn pods(path: &Path, namespace: &str) -> Result<Vec<Pod>> {
    let file = || format!("cannot read {}", path.display());
    let mut text = String::new();
    let mut read =
        |from: &mut dyn Read| from.take(what_if::read::FILE_MAX_BYTES + 1).read_to_string(&mut text);
    if path == Path::new("-") {
        read(&mut stdin().lock()).with_context(file)?;
    } else {
        read(&mut std::fs::File::open(path).with_context(file)?).with_context(file)?;
    }
    if text.len() as u64 > what_if::read::FILE_MAX_BYTES {
        bail!("{} is larger than {} bytes", path.display(), what_if::read::FILE_MAX_BYTES);
    }
    what_if::read::pods(&text, namespace).with_context(|| path.display().to_string())
}

#[derive(Serialize)]
struct Found {
    severity: String,
    kind: String,
    node: String,
    text: String,
}

fn audit(world: &World) -> Result<Answer> {
    let findings = doctor::audit_world(world);
    let mut page = Page::default();
    for finding in &findings {
        let tone = match finding.severity {
            Severity::Error => Tone::Bad,
            Severity::Warning => Tone::Warn,
            Severity::Notice => Tone::Dim,
        };
        page.tone(tone, finding.to_string());
    }
    let found = findings.iter().any(|finding| finding.severity > Severity::Notice);
    if !found {
        let nodes = world.nodes.iter().filter(|node| node.published.is_some()).count();
        page.say(format!("{nodes} GPU nodes, nothing wrong."));
    }
    let facts = findings.into_iter().map(|finding| Found {
        severity: format!("{:?}", finding.severity),
        kind: format!("{:?}", finding.kind),
        node: finding.node,
        text: finding.text,
    });
    Ok(Answer { found, ..Answer::new(page, &facts.collect::<Vec<_>>())? })
}

//! `main` of a test target: prepares, isolates, and runs scenarios one after another on one stage.
//!
//! A stage is what scenarios share: a cluster and the programs under test. Starting one takes longer than
//! most scenarios, so it starts with the first scenario that runs, and all of them use it, in the order given.
//! Listing, and filters that match nothing, start nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;

use crate::build::{self, Scope};
use crate::isolation::{self, Entered, Isolated};
use crate::prerequisites;
use crate::versions::Versions;

/// What is left to do when a stage is dropped: nothing that is worth waiting for.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

/// One test on a stage `S`, an async function that fails by returning an error (or by panicking).
pub struct Scenario<S> {
    name: &'static str,
    body: ScenarioBody<S>,
}

/// A scenario's function. See [`scenarios!`](crate::scenarios).
pub type ScenarioBody<S> = for<'a> fn(&'a mut S) -> LocalBoxFuture<'a, Result<()>>;

impl<S> Scenario<S> {
    /// `name` is a true sentence in snake case, as tests' names are.
    pub fn new(name: &'static str, body: ScenarioBody<S>) -> Self {
        Self { name, body }
    }
}

/// Makes a list of [`Scenario`]s from async functions `fn(&mut Stage) -> anyhow::Result<()>`, named as they
/// are.
#[macro_export]
macro_rules! scenarios {
    ($($function:ident),* $(,)?) => {
        vec![$($crate::Scenario::new(stringify!($function), |stage| Box::pin($function(stage)))),*]
    };
}

/// A test target: its scenarios and their stage.
pub struct Run<S> {
    /// Emptied at the start; holds the logs afterwards. `env!("CARGO_TARGET_TMPDIR")` is a good parent.
    pub folder: PathBuf,
    /// What the stage starts.
    pub scope: Scope,
    /// In the order in which they run.
    pub scenarios: Vec<Scenario<S>>,
    /// Gets what the scenarios want besides the cluster, while there is a network: inside there is none.
    pub prepare: fn() -> Result<()>,
    /// Starts the stage.
    pub open: fn(Isolated) -> LocalBoxFuture<'static, Result<S>>,
}

impl<S: Send + 'static> Run<S> {
    /// To be called first in `main`, before any thread starts; returns what `main` is to return.
    ///
    /// Understands the arguments of `cargo test` (`--list`, a name to filter by, `--exact`, …). Where
    /// something is missing that the cluster needs, says exactly what; the scenarios are then reported as
    /// ignored, or as failed where `CI=true`.
    pub fn main(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        // In this very thread, one after another.
        arguments.test_threads = Some(1);
        let names: Vec<_> = self.scenarios.iter().map(|scenario| scenario.name).collect();
        if !runs_any(&arguments, &names) {
            return run_ignored(&arguments, &names, "");
        }
        match self.prepare_and_run(&arguments, &names) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn prepare_and_run(self, arguments: &Arguments, names: &[&'static str]) -> Result<ExitCode> {
        if !isolation::is_inner_process() {
            if let Err(lacking) = prepare(self.scope)? {
                eprintln!("{lacking}");
                return Ok(run_ignored(arguments, names, "what the cluster needs is missing: see above"));
            }
            (self.prepare)()?;
        }
        match isolation::enter(&self.folder)? {
            Entered::Finished(code) => Ok(code),
            Entered::Inside(isolated) => self.run_inside(arguments, isolated),
        }
    }

    fn run_inside(self, arguments: &Arguments, isolated: Isolated) -> Result<ExitCode> {
        let runtime = runtime()?;
        let logs = isolated.folder_outside().join("logs");
        let stage = Stage { runtime, open: self.open, state: State::Closed(isolated) };
        let stage = Arc::new(Mutex::new(stage));
        let (tell, told) = mpsc::channel();
        let trials = self.scenarios.into_iter().map(|scenario| {
            let (stage, logs, tell) = (Arc::clone(&stage), logs.clone(), tell.clone());
            Trial::test(scenario.name, move || {
                // A scenario that panicked says so itself; the stage is still there for the next one.
                let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
                stage.play(scenario.body).map_err(|error| {
                    _ = tell.send(in_short(scenario.name, &error));
                    Failed::from(complaint(&error, &logs))
                })
            })
        });
        let conclusion = libtest_mimic::run(arguments, trials.collect());
        // Once more, without logs: whoever keeps only the end of the output sees them all.
        told.try_iter().for_each(|line| eprintln!("{line}"));
        if let Some(stage) = Arc::into_inner(stage) {
            stage.into_inner().unwrap_or_else(PoisonError::into_inner).close();
        }
        Ok(conclusion.exit_code())
    }
}

/// A stage that opens when it is first needed.
struct Stage<S> {
    runtime: Runtime,
    open: fn(Isolated) -> LocalBoxFuture<'static, Result<S>>,
    state: State<S>,
}

enum State<S> {
    Closed(Isolated),
    Open(S),
    Failed,
}

impl<S> Stage<S> {
    fn play(&mut self, body: ScenarioBody<S>) -> Result<()> {
        if matches!(self.state, State::Closed(_))
            && let State::Closed(isolated) = std::mem::replace(&mut self.state, State::Failed)
        {
            let start = Instant::now();
            self.state = State::Open(self.runtime.block_on((self.open)(isolated))?);
            eprintln!("\n(the cluster was ready after {:.1} s)", start.elapsed().as_secs_f64());
        }
        match &mut self.state {
            State::Open(stage) => self.runtime.block_on(body(stage)),
            State::Closed(_) | State::Failed => {
                bail!("the cluster did not start, as the first scenario says")
            }
        }
    }

    fn close(self) {
        let start = Instant::now();
        let guard = self.runtime.enter();
        drop(self.state);
        drop(guard);
        self.runtime.shutdown_timeout(SHUTDOWN_LIMIT);
        eprintln!("(the cluster was gone after {:.1} s)", start.elapsed().as_secs_f64());
    }
}

/// What a failed scenario prints. Without the stack that `{:?}` would add: that of a runtime, for the most part.
fn complaint(error: &anyhow::Error, logs: &Path) -> String {
    let causes: Vec<_> = error.chain().map(ToString::to_string).collect();
    format!("{}\n\nThe logs of all processes are in {}", causes.join("\ncaused by: "), logs.display())
}

/// The same on one line.
fn in_short(scenario: &str, error: &anyhow::Error) -> String {
    let causes: Vec<_> =
        error.chain().filter_map(|cause| Some(cause.to_string().lines().next()?.to_owned())).collect();
    format!("{scenario} failed: {}", causes.join(": "))
}

/// Makes sure that everything is there that such a cluster needs; for the outermost process (see
/// [`isolation::is_inner_process`]). The inner error is for people: what is missing and how to get it.
///
/// # Errors
/// When something could not be built or installed, or is missing where `CI=true`.
pub fn prepare(scope: Scope) -> Result<std::result::Result<(), String>> {
    let versions = Versions::from_env();
    let mut missing = prerequisites::missing(&versions, scope);
    if !missing.is_empty() && prerequisites::may_install() {
        prerequisites::install(&missing)?;
        missing = prerequisites::missing(&versions, scope);
    }
    if !missing.is_empty() {
        let list: Vec<_> = missing.iter().map(|missing| format!("  - {missing}")).collect();
        let mut text = format!("The cluster needs, and does not find:\n{}", list.join("\n"));
        if let Some(command) = prerequisites::install_command(&missing) {
            let name = prerequisites::INSTALL_ENV;
            text.push_str(&format!("\nRun `{command}` as root, or set {name}=1 to let it be done."));
        }
        if prerequisites::in_ci() {
            bail!("{text}\nWith CI=true nothing may be skipped");
        }
        return Ok(Err(text));
    }
    build::ensure_built(&versions, scope)?;
    Ok(Ok(()))
}

/// Runs `body` in namespaces of its own, in `folder`; to be called in `main`, with no thread started.
///
/// # Errors
/// When something is missing that the cluster needs, or `body` fails.
pub fn isolated<F: Future<Output = Result<()>>>(
    folder: &Path,
    scope: Scope,
    body: impl FnOnce(Isolated) -> F,
) -> Result<ExitCode> {
    if !isolation::is_inner_process()
        && let Err(lacking) = prepare(scope)?
    {
        bail!(lacking);
    }
    match isolation::enter(folder)? {
        Entered::Finished(code) => Ok(code),
        Entered::Inside(isolated) => {
            runtime()?.block_on(body(isolated))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().context("cannot start the runtime")
}

/// True when at least one scenario is to run.
fn runs_any(arguments: &Arguments, names: &[&'static str]) -> bool {
    let chosen = |name: &&'static str| {
        let trial = Trial::test(*name, || Ok(()));
        !arguments.is_filtered_out(&trial) && !arguments.is_ignored(&trial)
    };
    !arguments.list && names.iter().any(chosen)
}

/// Lists the scenarios, or reports those chosen as ignored.
fn run_ignored(arguments: &Arguments, names: &[&'static str], reason: &str) -> ExitCode {
    let trials = names.iter().map(|name| {
        let reason = reason.to_owned();
        Trial::ignorable_test(*name, move || Ok(Completion::ignored_with(reason)))
    });
    libtest_mimic::run(arguments, trials.collect()).exit_code()
}

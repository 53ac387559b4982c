//! Structured logs on standard error: JSON for machines, text for people.

use clap::{Args, ValueEnum};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Lines for a terminal.
    Text,
}

/// The flags that both programs share.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// How log lines are written.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info or debug, or a filter such as info,stowage=debug.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// kube warns of each try of a watch that fails, and of each call that does not reach the API server; the programs tell
/// it once, with what to do. A filter that names the target brings the warnings back.
const QUIET: &str = "kube_runtime::watcher=error,kube_client::client::builder=off";

/// Starts logging; a filter that cannot be read falls back to `info`, and says so.
pub fn init(args: &LogArgs) {
    let filter = |level: &str| format!("{QUIET},{level}").parse::<Targets>();
    let (filter, mistake) = match filter(&args.log_level) {
        Ok(filter) => (filter, None),
        Err(error) => (filter("info").unwrap_or_default(), Some(error)),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match args.log_format {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
    };
    // A second call, as in a test, leaves the first one's logger in place.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    if let Some(error) = mistake {
        let log_level = &args.log_level;
        tracing::warn!(%error, log_level, "The log level cannot be read: info is used.");
    }
}

//! `kubectl stowage`: the program.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use jiff::Timestamp;
use kubectl_stowage::ask::ask;
use kubectl_stowage::flags::{Cli, Question};
use kubectl_stowage::page::{Style, printable};
use kubectl_stowage::{complete, simulate, top};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::FAILURE,
        Ok(false) => ExitCode::SUCCESS,
        // Whoever reads, such as `head`, has had enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubectl stowage: {}", printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// Whether something was found.
fn run(cli: &Cli) -> Result<bool> {
    let mut out = io::stdout().lock();
    if let Question::Completion { shell } = cli.question {
        let mut script = Vec::new();
        // Completion is for the program's own name.
        clap_complete::generate(shell, &mut Cli::command(), "kubectl-stowage", &mut script);
        out.write_all(&script)?;
        return Ok(false);
    }
    if let Question::Complete { words } = &cli.question {
        let completed = complete::complete(Cli::command(), words, &mut out);
        return runtime()?.block_on(completed).map(|()| false).map_err(Into::into);
    }
    if let Question::Simulate(args) = &cli.question {
        return simulate::run(args, &mut out).map(|()| false);
    }
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let term = std::env::var("TERM").ok();
    let style = Style::of(io::stdout().is_terminal(), no_color, term.as_deref());
    if let Question::Top(flags) = &cli.question {
        drop(out);
        return top::run(cli, flags, style == Style::Colour).map(|()| false);
    }
    let answer = runtime()?.block_on(async {
        let connected = cli.connection.connect().await?;
        ask(cli, &connected, Timestamp::now()).await
    })?;
    answer.print(cli.output, style, &mut out)?;
    out.flush()?;
    Ok(answer.found)
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

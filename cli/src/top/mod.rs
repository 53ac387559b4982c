//! `kubectl stowage top`: every GPU node on a full screen, read again and again.
//!
//! ```text
//!   a thread: Objects ──► World ──(one at a time)──► View ──► draw ──► the terminal
//!                                                     ▲ keys
//! ```
//!
//! The terminal is given back however it ends: by a key, an error, SIGTERM, SIGHUP or a panic.

pub mod draw;
pub mod rows;
pub mod view;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};

use self::draw::{Colours, draw};
use self::view::{Flow, Read, View};
use crate::answer::Output;
use crate::connect::Connected;
use crate::flags::{Cli, Top};
use crate::objects::Objects;
use crate::schedulers::Schedulers;
use crate::world::World;

/// How long a key may wait to be seen.
const TICK: Duration = Duration::from_millis(200);
/// A cluster that takes long to read is read less often: the API server has others to serve.
const REST: u32 = 4;

/// What the reading thread tells.
enum Told {
    /// What was read, or why not.
    Read(Box<Result<Read, String>>),
    /// The process was asked to end.
    End,
}

/// Shows the screen until the person has had enough.
///
/// # Errors
/// Where there is no terminal, or no way to the cluster.
pub fn run(cli: &Cli, flags: &Top, colours: bool) -> Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() || cli.output != Output::Text {
        bail!(
            "top needs a terminal to itself: kubectl stowage nodes prints the same once, and with -o for programs"
        );
    }
    let (tell, told) = sync_channel(1);
    let (connection, schedulers) = (cli.connection.clone(), cli.schedulers.clone());
    let every = Duration::from_secs(flags.interval.into());
    let (ready, connected) = sync_channel(1);
    thread::Builder::new()
        .name("read".to_owned())
        .spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error.into()))),
            };
            runtime.block_on(async {
                match connection.connect().await {
                    Ok(there) => {
                        drop(ready.send(Ok(())));
                        read(&there, &schedulers, &tell, every).await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        })
        .context("cannot start a thread")?;
    connected.recv().context("the thread that reads the cluster ended")??;
    let mut terminal = ratatui::try_init().context("cannot take the terminal")?;
    let shown = show(&mut terminal, View::new(cli.connection.namespace.clone()), Colours(colours), &told);
    let restored = ratatui::try_restore().context("cannot give the terminal back: try `reset`");
    shown.and(restored)
}

/// Reads the cluster until nobody wants it any more, or the process is asked to end.
async fn read(connected: &Connected, schedulers: &Schedulers, tell: &SyncSender<Told>, every: Duration) {
    let reading = async {
        loop {
            let started = Instant::now();
            let objects = Objects::read(&connected.client, Timestamp::now()).await;
            let took = started.elapsed();
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let read =
                objects.map(|objects| Read { world: Arc::new(World::of(&objects, schedulers)), took_ms });
            let read = read.map_err(|error| format!("{error:#}"));
            if tell.send(Told::Read(Box::new(read))).is_err() {
                return;
            }
            tokio::time::sleep(every.max(took * REST)).await;
        }
    };
    tokio::select! {
        () = reading => {}
        () = asked_to_end() => drop(tell.send(Told::End)),
    }
}

/// Waits for SIGTERM or SIGHUP; Ctrl-C is a key here.
#[cfg(unix)]
async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Elsewhere the terminal's own end is enough.
#[cfg(not(unix))]
async fn asked_to_end() {
    std::future::pending().await
}

fn show(
    terminal: &mut DefaultTerminal,
    mut view: View,
    colours: Colours,
    told: &Receiver<Told>,
) -> Result<()> {
    loop {
        loop {
            match told.try_recv() {
                Ok(Told::Read(read)) => view.update(*read),
                Ok(Told::End) => return Ok(()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => bail!("the thread that reads the cluster ended"),
            }
        }
        terminal.draw(|frame| draw(&mut view, colours, frame)).context("cannot draw")?;
        if event::poll(TICK).context("cannot read the keyboard")?
            && let Event::Key(key) = event::read().context("cannot read the keyboard")?
            && view.press(key) == Flow::Quit
        {
            return Ok(());
        }
    }
}

//! Keeps one resource offered to the kubelet, life after life.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use ops::Fault;
use stowage_shared::resource::ResourceName;
use tokio::time::sleep;

use super::folder::{self, Changes, Folder, Identity};
use super::life::{End, Life, Surroundings};
use super::sockets;

/// A device list that the kubelet followed for this long was a good one: whatever ended it begins a new count.
const STABLE: Duration = Duration::from_secs(10);
/// The first wait after a life that came to nothing; it doubles from then on.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait. Two plugins that take one resource from each other must not make a war of it.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Offers a resource until the program is to end.
///
/// # Errors
/// A [`Fault`] where our own server died, or where the first socket could not be made.
pub async fn offer(resource: ResourceName, world: Surroundings, folder: &Folder) -> Result<(), Fault> {
    let mut changes = folder.changes();
    let mut failures = 0;
    let mut is_first = true;
    loop {
        let kubelet = folder::identity(&world.kubelet_socket);
        let mut life = match Life::begin(&resource, &world) {
            Ok(life) => life,
            Err(error) if is_first && error.is_permission() => return Err(Fault::no_permission(error)),
            Err(error) if is_first => return Err(Fault::unavailable(error)),
            Err(error) => {
                // It was possible before: the folder is being made anew, or the disk is full.
                if failures == 0 {
                    tracing::error!(resource_name = %resource, %error, "The resource cannot be offered for now.");
                }
                world.plugin.set_offered(&resource, Some(error.to_string()));
                failures += 1;
                if !wait(failures, kubelet, &world, &mut changes).await {
                    return Ok(());
                }
                continue;
            }
        };
        is_first = false;
        let mut listed_at = None;
        let end = life
            .run(&world, &mut changes, || {
                listed_at = Some(Instant::now());
                world.plugin.set_offered(&resource, None);
                world.plugin.metrics.registered(&resource, "ok");
                world.plugin.metrics.set_streams(&resource, 1);
                tracing::info!(resource_name = %resource, "Registered: the kubelet follows the device list.");
            })
            .await;
        world.plugin.metrics.set_streams(&resource, 0);
        let stable = listed_at.is_some_and(|at| at.elapsed() >= STABLE);
        match end {
            End::Stopped => {
                life.end().await;
                return Ok(());
            }
            End::ServerDied(why) => {
                return Err(Fault::software(anyhow!("the gRPC server of {resource} died: {why}")));
            }
            end => tell(&resource, &end, &life, &world),
        }
        // The old server may still have a call to answer; the new one need not wait for that.
        tokio::spawn(life.end());
        // A kubelet that starts anew ends every life, through no fault of it.
        let anew = folder::identity(&world.kubelet_socket) != kubelet;
        failures = if stable || anew { 0 } else { failures + 1 };
        if failures > 0 && !wait(failures, kubelet, &world, &mut changes).await {
            return Ok(());
        }
    }
}

/// Logs and notes what ended a life.
fn tell(resource: &ResourceName, end: &End, life: &Life, world: &Surroundings) {
    let metrics = &world.plugin.metrics;
    let why = match end {
        End::Stopped | End::ServerDied(_) => return,
        End::SocketGone | End::KubeletRestarted => {
            tracing::info!(resource_name = %resource, ?end, "The kubelet starts anew: registering again.");
            return world.plugin.set_offered(resource, Some("the kubelet starts anew".to_owned()));
        }
        End::StreamDropped => "the kubelet hung up".to_owned(),
        End::NoStream => {
            metrics.registered(resource, "no_stream");
            "the kubelet took the registration and does not ask for the device list".to_owned()
        }
        End::Refused(status) => {
            metrics.registered(resource, "refused");
            format!("the kubelet refused the registration: {}", status.message())
        }
    };
    let folder = world.kubelet_socket.parent().unwrap_or(Path::new("/"));
    let rivals = sockets::rivals(folder, life.socket());
    tracing::warn!(resource_name = %resource, error = why, ?rivals, "Registering again.");
    let hint = if rivals.is_empty() {
        String::new()
    } else {
        format!("; is another plugin serving it? There are {}", rivals.join(", "))
    };
    world.plugin.set_offered(resource, Some(format!("{why}{hint}")));
}

/// Waits before the next life, shorter if the kubelet starts anew. False where the program is to end.
async fn wait(failures: u32, kubelet: Option<Identity>, world: &Surroundings, changes: &mut Changes) -> bool {
    let pause = (FIRST_WAIT * 2_u32.saturating_pow(failures - 1).min(1 << 16)).min(LONGEST_WAIT);
    let anew = async {
        while folder::identity(&world.kubelet_socket).is_none_or(|now| Some(now) == kubelet) {
            changes.next().await;
        }
    };
    let mut stop = world.stop.clone();
    tokio::select! {
        () = sleep(pause) => true,
        () = anew => true,
        _ = stop.wait_for(|stop| *stop) => false,
    }
}

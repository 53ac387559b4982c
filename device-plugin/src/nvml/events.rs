//! Hearing of XIDs as they happen.
//!
//! NVML tells events only to a thread that waits for them in the driver, so there is one that does nothing else. It
//! calls `nvmlEventSetWait_v2` itself: `nvml-wrapper` leaves out which MIG instance an event is about.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use stowage_shared::gpu::GpuUuid;
use tokio::sync::mpsc;

use super::NvmlGpus;
use super::raw::{EventSet, RawEvent};

/// How long one wait in the driver lasts: a listener that is not wanted any more ends within this time.
const WAIT: Duration = Duration::from_secs(2);
/// How long to pause after a wait that failed: some failures come back at once, again and again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Events that may wait for the plugin; the driver keeps more.
const QUEUE: usize = 256;

/// What the driver tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// An XID.
    Xid {
        /// The GPU; `None` where NVML does not say which.
        gpu: Option<GpuUuid>,
        /// Its number.
        xid: u64,
        /// The GPU instance, and perhaps the compute instance in it, where the event is about no more than that.
        instances: Option<(u32, Option<u32>)>,
    },
    /// Something else happened, such as a memory error or a lost GPU: worth a look.
    Look,
}

/// Listens until it is dropped.
pub struct Listener {
    told: mpsc::Receiver<Told>,
    stop: Arc<AtomicBool>,
}

impl Listener {
    /// Begins to listen to these GPUs, by NVML's index.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn start(gpus: Arc<NvmlGpus>, listen_to: Vec<(u32, GpuUuid)>) -> io::Result<Self> {
        let (tell, told) = mpsc::channel(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        thread::Builder::new().name("nvml-events".to_owned()).spawn(move || {
            if let Err(error) = listen(&gpus, &listen_to, &tell, &stopped) {
                tracing::warn!(%error, "NVML tells no events: GPUs that fail are noticed only when they are read.");
            }
        })?;
        Ok(Self { told, stop })
    }

    /// The next thing that the driver tells; `None` once it tells no more.
    pub async fn next(&mut self) -> Option<Told> {
        self.told.recv().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn listen(
    gpus: &NvmlGpus,
    listen_to: &[(u32, GpuUuid)],
    tell: &mpsc::Sender<Told>,
    stop: &AtomicBool,
) -> Result<(), NvmlError> {
    let mut set = EventSet::new(gpus.nvml.lib())?;
    let mut deaf = Vec::new();
    for (index, uuid) in listen_to {
        match gpus.nvml.device_by_index(*index).and_then(|device| set.add(&device, uuid)) {
            Ok(()) => {}
            Err(error) => deaf.push(format!("GPU {index}: {error}")),
        }
    }
    if !deaf.is_empty() {
        tracing::warn!(
            error = deaf.join("; "),
            "Some GPUs tell no XIDs: their failures are noticed only when they are read."
        );
    }
    if deaf.len() == listen_to.len() {
        return Ok(());
    }
    while !stop.load(Ordering::Relaxed) {
        let told = match set.wait(WAIT) {
            Ok(RawEvent { gpu, xid: Some(xid), instances }) => Told::Xid { gpu, xid, instances },
            Ok(_) => Told::Look,
            Err(NvmlError::Timeout) => continue,
            Err(NvmlError::Uninitialized) => return Ok(()),
            Err(_) => {
                // A lost GPU fails every wait. Whoever reads the GPUs finds out which.
                thread::sleep(AFTER_FAILURE);
                Told::Look
            }
        };
        if tell.blocking_send(told).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

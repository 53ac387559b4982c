//! NVML as it is used: opened, read GPU by GPU with each call bounded in time, and opened again when it fails.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use stowage_shared::contract::GPUS_PER_NODE_MAX;

use super::calls::{About, CallError, Calls};
use super::{Census, GpuReading, NvmlFault, NvmlGpus, Vitals};

/// Why one GPU cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It is gone, or does nothing until it is reset.
    Lost(String),
    /// It answers with an error that says nothing of its hardware.
    Unreadable(String),
    /// It does not answer.
    Hangs(String),
}

impl Trouble {
    /// In words.
    pub fn why(&self) -> &str {
        let (Self::Lost(why) | Self::Unreadable(why) | Self::Hangs(why)) = self;
        why
    }
}

impl From<NvmlError> for Trouble {
    fn from(error: NvmlError) -> Self {
        match error {
            NvmlError::GpuLost | NvmlError::ResetRequired => Self::Lost(error.to_string()),
            _ => Self::Unreadable(error.to_string()),
        }
    }
}

/// What a look at every GPU finds.
#[derive(Debug)]
pub struct Look {
    /// The driver's version.
    pub driver_version: String,
    /// By NVML's index.
    pub gpus: Vec<Result<(GpuReading, Vitals), Trouble>>,
}

/// NVML, open or not. One for the whole program.
pub struct Session {
    driver_root: PathBuf,
    sysfs: PathBuf,
    /// Whether GPU instances are looked at as well.
    with_instances: bool,
    calls: Calls,
    open: Mutex<Option<Arc<NvmlGpus>>>,
}

impl Session {
    /// Nothing is opened yet. `limit` is how long one call may take.
    pub fn new(driver_root: PathBuf, sysfs: PathBuf, limit: Duration) -> Self {
        let (calls, open) = (Calls::new(limit), Mutex::default());
        Self { driver_root, sysfs, with_instances: false, calls, open }
    }

    /// Looks at GPU instances as well, which cost a call for each profile.
    pub fn with_instances(mut self, with_instances: bool) -> Self {
        self.with_instances = with_instances;
        self
    }

    /// NVML, if it is open. Calls of it belong into [`Session::call`].
    pub fn gpus(&self) -> Option<Arc<NvmlGpus>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, gpus: Option<Arc<NvmlGpus>>) -> Option<Arc<NvmlGpus>> {
        std::mem::replace(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner), gpus)
    }

    /// Opens NVML; gives what is open already.
    ///
    /// # Errors
    /// [`NvmlFault`].
    pub async fn open(&self) -> Result<Arc<NvmlGpus>, NvmlFault> {
        if let Some(gpus) = self.gpus() {
            return Ok(gpus);
        }
        let (driver_root, sysfs) = (self.driver_root.clone(), self.sysfs.clone());
        let opened = self.calls.run(About::Driver, move || NvmlGpus::open(&driver_root, &sysfs)).await??;
        let gpus = Arc::new(opened);
        self.set(Some(gpus.clone()));
        Ok(gpus)
    }

    /// Lets NVML go, so that [`Session::open`] starts it anew.
    pub async fn close(&self) {
        if let Some(gpus) = self.set(None) {
            // The last one to let go shuts NVML down, which is a call of the driver as well. That it may hang is
            // found out when it is opened again.
            let _ = self.calls.run(About::Driver, move || drop(gpus)).await;
        }
    }

    /// Makes one call, bounded in time.
    ///
    /// # Errors
    /// [`CallError`]; `Ok(None)` where NVML is not open.
    pub async fn call<T: Send + 'static>(
        &self,
        about: About,
        call: impl FnOnce(&NvmlGpus) -> T + Send + 'static,
    ) -> Result<Option<T>, CallError> {
        let Some(gpus) = self.gpus() else { return Ok(None) };
        self.calls.run(about, move || call(&gpus)).await.map(Some)
    }

    /// Waits until a call returns that had been given up.
    pub async fn returned(&self) {
        self.calls.returned().await;
    }

    /// Looks at every GPU; opens NVML if need be.
    ///
    /// # Errors
    /// [`NvmlFault`] where NVML as a whole does not work.
    pub async fn look(&self) -> Result<Look, NvmlFault> {
        let gpus = self.open().await?;
        let (asked, with_instances) = (gpus.clone(), self.with_instances);
        let Census { driver_version, count } =
            self.calls.run(About::Driver, move || asked.census()).await??;
        let mut found = Vec::with_capacity(count.min(GPUS_PER_NODE_MAX as u32) as usize);
        for index in 0..count {
            let asked = gpus.clone();
            let gpu = match self.calls.run(About::Gpu(index), move || asked.look(index, with_instances)).await
            {
                Ok(Ok(gpu)) => Ok(gpu),
                Ok(Err(NvmlError::NoPermission)) => return Err(NvmlFault::mig_permission()),
                Ok(Err(error)) => Err(Trouble::from(error)),
                Err(hangs @ CallError::Hangs { .. }) => Err(Trouble::Hangs(hangs.to_string())),
                Err(error) => return Err(error.into()),
            };
            found.push(gpu);
        }
        none_answers(&found)?;
        Ok(Look { driver_version, gpus: found })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Shutting NVML down is a call into the driver, which may hang: nobody waits for it, least of all the end of
        // the process.
        let gpus = self.set(None);
        let _ = std::thread::Builder::new().name("nvml-end".to_owned()).spawn(move || drop(gpus));
    }
}

/// Where not one GPU answers, and none is known to be lost, it is not the GPUs: so it is after a `systemctl
/// daemon-reload` that took this container's right to open device nodes away, when every call fails with "Unknown
/// Error".
fn none_answers(found: &[Result<(GpuReading, Vitals), Trouble>]) -> Result<(), NvmlFault> {
    let unreadable = |gpu: &Result<_, Trouble>| match gpu {
        Err(Trouble::Unreadable(why)) => Some(why.clone()),
        _ => None,
    };
    let reasons: Option<Vec<String>> = found.iter().map(unreadable).collect();
    match reasons.and_then(|mut reasons| reasons.pop()) {
        Some(why) => Err(NvmlFault::NoGpuAnswers(why)),
        None => Ok(()),
    }
}

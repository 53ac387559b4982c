//! What the device plugin's own code sees of this machine, by way of NVML.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use stowage_device_plugin::config::MigStrategy;
use stowage_device_plugin::health::{Health, Rules, Seen};
use stowage_device_plugin::labels::{self, Labels};
use stowage_device_plugin::nvml::{About, GpuDetails, GpuReading, GpuUsage, Nearness, Session, Vitals};

/// How long one call may take, as in the plugin.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// All of it.
#[derive(Debug)]
pub struct Ours {
    pub driver_version: String,
    pub cuda_version: (i32, i32),
    /// By NVML's index; why not, where one cannot be read.
    pub gpus: Vec<Result<Gpu, String>>,
    pub nearness: Nearness,
    /// With `migStrategy: mixed`, without a time.
    pub labels: Labels,
}

/// One GPU.
#[derive(Debug)]
pub struct Gpu {
    pub reading: GpuReading,
    pub vitals: Vitals,
    pub details: GpuDetails,
    pub usage: GpuUsage,
    /// Why the plugin would hand out none of it.
    pub ill: Option<String>,
}

/// Reads it.
pub async fn read(driver_root: &Path) -> Result<Ours> {
    let sysfs = Path::new("/sys");
    let session = Session::new(driver_root.to_owned(), sysfs.to_owned(), CALL_LIMIT);
    let look = session.look().await?;
    let mut health = Health::new(Rules::default());
    let mut gpus = Vec::new();
    for seen in look.gpus {
        gpus.push(match seen {
            Ok((reading, vitals)) => {
                more(&session, &mut health, reading, vitals).await.map_err(|error| format!("{error:#}"))
            }
            Err(trouble) => Err(trouble.why().to_owned()),
        });
    }
    let known: Vec<_> =
        gpus.iter().flatten().map(|gpu| (gpu.reading.index, gpu.reading.uuid.clone())).collect();
    let machine = Path::new("/sys/class/dmi/id/product_name");
    let whole = session.call(About::Driver, move |nvml| {
        Ok::<_, anyhow::Error>((
            nvml.cuda_version()?,
            nvml.nearness(&known),
            labels::read_facts(nvml, sysfs, machine)?,
        ))
    });
    let (cuda_version, nearness, facts) = whole.await?.context("NVML is closed")??;
    let rules = labels::Rules { mig_strategy: MigStrategy::Mixed, sharing: None, timestamp: None };
    let labels = labels::labels(&facts, &rules);
    Ok(Ours { driver_version: look.driver_version, cuda_version, gpus, nearness, labels })
}

async fn more(session: &Session, health: &mut Health, reading: GpuReading, vitals: Vitals) -> Result<Gpu> {
    let asked = reading.clone();
    let told = session.call(About::Gpu(reading.index), move |nvml| {
        Ok::<_, anyhow::Error>((
            nvml.details(&asked).map_err(|error| anyhow!("its details: {error}"))?,
            nvml.usage(asked.index).map_err(|error| anyhow!("its use: {error}"))?,
        ))
    });
    let (details, usage) = told.await?.context("NVML is closed")??;
    health.apply(&reading.uuid, Seen::Well(vitals), Duration::ZERO);
    let ill = health.why_none(&reading.uuid).map(str::to_owned);
    Ok(Gpu { reading, vitals, details, usage, ill })
}

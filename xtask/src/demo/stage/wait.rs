//! Waiting for other processes, with a deadline and a reason.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How long anything may take. What takes longer is broken.
pub const WAIT_MAX: Duration = Duration::from_secs(20);
/// How often a process without a watch is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Looks again and again until `is_so`; `otherwise` tells what is the matter when the time is over.
pub async fn wait_for(
    mut is_so: impl FnMut() -> Result<bool>,
    otherwise: impl FnOnce() -> String,
) -> Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    while !is_so()? {
        if Instant::now() >= deadline {
            bail!("waited {} s in vain: {}", WAIT_MAX.as_secs(), otherwise());
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

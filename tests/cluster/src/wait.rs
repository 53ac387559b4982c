//! Waiting for something to become true, with a deadline and a useful complaint.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::Instant;

/// How long to wait between two looks: short against every limit, long against one API call.
const POLL: Duration = Duration::from_millis(100);

/// Looks again and again until `look` answers `Ok`, and returns that answer.
///
/// An `Err` from `look` means "not yet", and its text is what was seen: write it with `anyhow::ensure!` or
/// `bail!`, naming the numbers. API errors count as "not yet" too, so a look may use `?` freely.
///
/// # Errors
/// After `limit`, with `what` was waited for and what was seen last. A look that hangs is given up too.
///
/// ```no_run
/// # async fn example(pods: kube::Api<k8s_openapi::api::core::v1::Pod>) -> anyhow::Result<()> {
/// use std::time::Duration;
/// let limit = Duration::from_secs(30);
/// stowage_cluster_tests::wait_until(limit, "three pods", async || {
///     let count = pods.list(&Default::default()).await?.items.len();
///     anyhow::ensure!(count == 3, "{count} pods");
///     Ok(())
/// })
/// .await
/// # }
/// ```
pub async fn wait_until<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut seen = "nothing: the first look did not end".to_owned();
    while let Ok(answer) = tokio::time::timeout_at(deadline, look()).await {
        match answer {
            Ok(value) => return Ok(value),
            Err(not_yet) => seen = format!("{not_yet:#}"),
        }
        if Instant::now() + POLL >= deadline {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    Err(anyhow!("gave up waiting for {what} after {limit:?}; last seen: {seen}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_first_answer_is_returned() {
        let mut looks = 0;
        let answer = wait_until(Duration::from_secs(10), "three looks", async || {
            looks += 1;
            anyhow::ensure!(looks == 3, "{looks} looks");
            Ok(looks)
        });
        assert_eq!(answer.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn giving_up_tells_what_was_wanted_and_what_was_seen() {
        let error = wait_until::<()>(Duration::from_millis(1), "rain", async || {
            anyhow::bail!("only sun");
        });
        let text = error.await.unwrap_err().to_string();
        assert_eq!(text, "gave up waiting for rain after 1ms; last seen: only sun");
    }

    #[tokio::test]
    async fn a_look_that_hangs_is_given_up() {
        let error =
            wait_until::<()>(Duration::from_millis(1), "an end", async || std::future::pending().await);
        assert!(error.await.unwrap_err().to_string().contains("did not end"));
    }
}

//! What is read of running programs: their metrics, their memory and their time.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Numbers in the text that Prometheus reads.
#[derive(Debug, Clone, Default)]
pub struct Metrics(String);

impl Metrics {
    /// Takes the text as it is served.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The sum of all series of `name` whose labels contain each of `labels`, such as `verb="filter"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.series(name)
            .filter(|(found, _)| labels.iter().all(|label| found.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }

    /// All series of `name`: labels as they are written, and value.
    pub fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once('}')?,
                None => ("", rest.strip_prefix(' ').map(|_| rest)?),
            };
            Some((labels, value.split_whitespace().next()?.parse().ok()?))
        })
    }
}

/// The value of one label in a series' labels.
pub fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let found = labels.split(',').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix("=\""));
    found.map_or("", |value| value.trim_end_matches('"'))
}

/// The writes that an API server has answered with success, by what was written and how.
///
/// From its metrics, `apiserver_request_total`: so everybody's writes are in it.
pub fn writes(metrics: &Metrics) -> BTreeMap<String, u64> {
    let mut writes = BTreeMap::new();
    for (labels, value) in metrics.series("apiserver_request_total") {
        let verb = label(labels, "verb");
        let is_write = ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&verb);
        if !is_write || !label(labels, "code").starts_with('2') {
            continue;
        }
        let (resource, part) = (label(labels, "resource"), label(labels, "subresource"));
        let what = if part.is_empty() { resource.to_owned() } else { format!("{resource}/{part}") };
        // Counters of requests are whole and small.
        *writes.entry(format!("{verb} {what}")).or_default() += value as u64;
    }
    writes
}

/// What was written between two looks.
pub fn written_between(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let grown = after.iter().map(|(what, &count)| {
        let count = count.saturating_sub(before.get(what).copied().unwrap_or_default());
        (what.clone(), count)
    });
    grown.filter(|(_, count)| *count > 0).collect()
}

/// What a process takes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Resident memory now, in MiB.
    pub rss_mib: f64,
    /// The time its threads have been on a processor.
    pub cpu: Duration,
}

/// Reads it from `/proc`.
///
/// # Errors
/// When the process is gone.
pub fn usage(pid: u32) -> Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let rss: f64 = rss.trim().trim_end_matches(" kB").trim().parse()?;
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end in between.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanoseconds += text.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Usage { rss_mib: rss / 1024.0, cpu: Duration::from_nanos(nanoseconds) })
}

/// Asks an HTTP server on this machine; anything but a 200 is an error with the body.
///
/// # Errors
/// When nobody answers, or with something else than a 200.
pub async fn http_get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("nobody at {address}"))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: stowage\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{path}: {answer:?}"))?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}\n{body}");
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = "\
# HELP apiserver_request_total Requests
apiserver_request_total{code=\"201\",resource=\"pods\",subresource=\"binding\",verb=\"POST\"} 7
apiserver_request_total{code=\"409\",resource=\"pods\",subresource=\"binding\",verb=\"POST\"} 2
apiserver_request_total{code=\"200\",resource=\"pods\",subresource=\"\",verb=\"LIST\"} 9
apiserver_request_total_more 5
plain 2.5
";

    #[test]
    fn series_are_added_up_by_their_labels() {
        let metrics = Metrics::new(TEXT.to_owned());
        assert_eq!(metrics.sum("apiserver_request_total", &["resource=\"pods\"", "verb=\"POST\""]), 9.0);
        assert_eq!(metrics.sum("plain", &[]), 2.5);
        assert_eq!(metrics.sum("apiserver_request", &[]), 0.0);
    }

    #[test]
    fn only_writes_that_succeeded_count() {
        let writes = writes(&Metrics::new(TEXT.to_owned()));
        assert_eq!(writes, BTreeMap::from([("POST pods/binding".to_owned(), 7)]));
        assert_eq!(written_between(&writes, &writes), BTreeMap::new());
    }

    #[test]
    fn a_process_takes_memory() {
        assert!(usage(std::process::id()).unwrap().rss_mib > 0.1);
    }
}

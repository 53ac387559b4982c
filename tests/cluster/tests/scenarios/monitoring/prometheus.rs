//! A Prometheus, and its HTTP API.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stowage_cluster_tests::{Cluster, Process, Program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::stowage::LIMIT;

const ADDRESS: &str = "127.0.0.1:9090";
/// The time between two points of a range, in seconds: as often as the programs are scraped.
const STEP: u64 = 2;

/// A running one.
pub(super) struct Prometheus {
    pub(super) process: Process,
}

/// What a query answers: one line of a panel.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) values: Vec<f64>,
}

impl Prometheus {
    /// Starts it, and waits until it has scraped every target.
    pub(super) async fn start(cluster: &Cluster, program: PathBuf, configuration: &Value) -> Result<Self> {
        let folder = cluster.folder().join("prometheus");
        fs::create_dir_all(&folder)?;
        let file = folder.join("prometheus.yml");
        // JSON is YAML.
        fs::write(&file, serde_json::to_vec_pretty(configuration)?)?;
        let program = Program::new("prometheus", program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={ADDRESS}"));
        let prometheus = Self { process: cluster.start_program(program)? };
        let look = async || prometheus.every_target_is_up().await;
        cluster.wait_until(LIMIT, "every target to be scraped", &[&prometheus.process], look).await?;
        Ok(prometheus)
    }

    async fn every_target_is_up(&self) -> Result<()> {
        let targets = self.ask("targets", &[("state", "active")]).await?;
        let targets = targets["activeTargets"].as_array().context("no targets")?;
        ensure!(!targets.is_empty(), "no targets");
        for target in targets {
            ensure!(target["health"] == "up", "{}: {}", target["scrapeUrl"], target["lastError"]);
        }
        Ok(())
    }

    /// The lines of a query since then.
    pub(super) async fn range(&self, query: &str, since: SystemTime) -> Result<Vec<Series>> {
        let seconds = |time: SystemTime| Ok::<_, anyhow::Error>(time.duration_since(UNIX_EPOCH)?.as_secs());
        let (start, end) = (seconds(since)?.to_string(), seconds(SystemTime::now())?.to_string());
        let step = STEP.to_string();
        let given = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
        let answer = self.ask("query_range", &given).await.with_context(|| format!("in {query}"))?;
        let lines = answer["result"].as_array().context("a query without a result")?;
        lines.iter().map(series).collect()
    }

    /// The values that a label of these series has had since then.
    pub(super) async fn label_values(&self, of: &str, label: &str, since: SystemTime) -> Result<Vec<String>> {
        let start = since.duration_since(UNIX_EPOCH)?.as_secs().to_string();
        let answer =
            self.ask(&format!("label/{label}/values"), &[("match[]", of), ("start", &start)]).await?;
        Ok(serde_json::from_value(answer)?)
    }

    /// No rule's last evaluation ended with an error.
    pub(super) async fn rules_are_well(&self) -> Result<()> {
        let answer = self.ask("rules", &[]).await?;
        let groups = answer["groups"].as_array().context("no groups")?;
        let rules: Vec<&Value> =
            groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
        ensure!(rules.len() > 20, "only {} rules", rules.len());
        for rule in rules {
            ensure!(rule["health"] == "ok", "{}: {} {}", rule["name"], rule["health"], rule["lastError"]);
        }
        Ok(())
    }

    async fn ask(&self, path: &str, given: &[(&str, &str)]) -> Result<Value> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(given);
        let mut stream = TcpStream::connect(ADDRESS).await.context("nobody at Prometheus's address")?;
        // 1.0: the answer comes in one piece.
        let request = format!("GET /api/v1/{path}?{} HTTP/1.0\r\nHost: prometheus\r\n\r\n", query.finish());
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        let mut body: Value = serde_json::from_str(body).with_context(|| format!("{head}: {body}"))?;
        if body["status"] != "success" {
            bail!("Prometheus says {}", body["error"]);
        }
        Ok(body["data"].take())
    }
}

fn series(json: &Value) -> Result<Series> {
    let labels = serde_json::from_value(json["metric"].clone())?;
    let values = json["values"].as_array().context("a line without values")?;
    let values = values.iter().map(|pair| Ok(pair[1].as_str().context("no value")?.parse()?));
    Ok(Series { labels, values: values.collect::<Result<_>>()? })
}

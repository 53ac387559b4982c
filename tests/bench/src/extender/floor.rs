//! What ours is compared with: servers that know nothing.
//!
//! The Go program of `do-nothing/` reads requests into kube-scheduler's own types, as every extender in Go does, and
//! answers with all the names. Where Go is missing, a server in Rust that echoes stands in for it.

use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{ChildStdout, Command};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::program::Running;

/// A running server that knows nothing.
pub(super) struct Floor {
    /// What it is.
    pub(super) name: &'static str,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Its process; `None` where it is part of this one.
    pub(super) process: Option<Running>,
    _folder: Option<TempDir>,
}

/// Builds and starts the one in Go; says so where it cannot, and starts the one in Rust.
pub(super) async fn start() -> Result<Floor> {
    match go() {
        Ok(floor) => Ok(floor),
        Err(error) => {
            println!(
                "  the do-nothing server in Go cannot be built, so the baseline is one in Rust: {error:#}"
            );
            Ok(Floor { name: "echo in Rust", address: echo().await?, process: None, _folder: None })
        }
    }
}

fn go() -> Result<Floor> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("do-nothing");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("do-nothing");
    let mut build = Command::new("go");
    build.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&program).arg(".").current_dir(source);
    let built = build.output().context("cannot run `go`")?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr).trim());
    let mut process = Running::start_with_pipes(&mut Command::new(program))?;
    let output = process.output().context("it has no output")?;
    let address = first_line(output)?.trim().parse().context("its first line is no address")?;
    Ok(Floor { name: "do-nothing in Go", address, process: Some(process), _folder: Some(folder) })
}

fn first_line(output: ChildStdout) -> Result<String> {
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok(line)
}

#[derive(Deserialize)]
struct Names<'a> {
    #[serde(rename = "NodeNames", borrow)]
    names: Vec<&'a str>,
}

/// A server that parses the names and gives all of them back.
async fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::server::conn::http1::Builder::new();
            tokio::spawn(service.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    Ok(address)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let scores = request.uri().path() == "/prioritize";
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let names = serde_json::from_slice::<Names<'_>>(&body).map(|args| args.names).unwrap_or_default();
    let answer = if scores {
        let score = |name: &&str| json!({"Host": name, "Score": 0});
        names.iter().map(score).collect::<Value>()
    } else {
        json!({"Nodes": null, "NodeNames": names, "FailedNodes": {}, "FailedAndUnresolvableNodes": {}, "Error": ""})
    };
    Ok(Response::new(Full::new(answer.to_string().into())))
}

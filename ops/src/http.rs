//! `/livez`, `/readyz` and `/metrics`, over plain HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What a program says of itself. An `Err` is the reason, in a sentence, and becomes the body of a 503.
pub trait Health: Send + Sync {
    /// Would a restart help?
    ///
    /// # Errors
    /// Why it would.
    fn live(&self) -> Result<(), String>;

    /// May it be given work?
    ///
    /// # Errors
    /// Why not.
    fn ready(&self) -> Result<(), String>;
}

/// Connections at once; a scraper and two probes need three.
const CONNECTIONS_MAX: usize = 64;
/// The longest a client may take to send its request line and headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until the process ends, or the future is dropped: its connections end then too.
pub async fn serve(listener: &TcpListener, health: Arc<dyn Health>, registry: Arc<Registry>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "A connection could not be accepted.");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (health, registry) = (health.clone(), registry.clone());
        connections.spawn(async move {
            let answer = service_fn(|request| {
                let response = respond(&request, &*health, &registry);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "A connection ended early.");
            }
            drop(slot);
        });
    }
}

/// Answers one request; the body is not read.
pub fn respond<B>(request: &Request<B>, health: &dyn Health, registry: &Registry) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
    }
    let state = |result: Result<(), String>| match result {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    };
    match request.uri().path() {
        "/livez" | "/healthz" => state(health.live()),
        "/readyz" => state(health.ready()),
        "/metrics" => {
            let mut body = String::new();
            match prometheus_client::encoding::text::encode(&mut body, registry) {
                Ok(()) => with_type(StatusCode::OK, OPENMETRICS, body),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            }
        }
        _ => text(StatusCode::NOT_FOUND, "served here: /livez /readyz /metrics\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", body)
}

fn with_type(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    struct Said(Result<(), String>);

    impl Health for Said {
        fn live(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Result<(), String> {
            self.0.clone()
        }
    }

    async fn ask(method: &str, path: &str, ready: Result<(), String>) -> (u16, String) {
        let mut registry = Registry::default();
        registry.register("things", "Things.", Counter::<u64>::default());
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let response = respond(&request, &Said(ready), &registry);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_says_why_not() {
        assert_eq!(ask("GET", "/readyz", Ok(())).await, (200, "ok\n".into()));
        let no = ask("GET", "/readyz", Err("no stream".into())).await;
        assert_eq!(no, (503, "no stream\n".into()));
        assert_eq!(ask("GET", "/livez", Err("no stream".into())).await.0, 200);
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_and_other_paths_are_none() {
        let (status, body) = ask("GET", "/metrics", Ok(())).await;
        assert!(status == 200 && body.contains("things_total 0") && body.ends_with("# EOF\n"), "{body}");
        assert_eq!(ask("GET", "/", Ok(())).await.0, 404);
        assert_eq!(ask("POST", "/metrics", Ok(())).await.0, 405);
    }
}

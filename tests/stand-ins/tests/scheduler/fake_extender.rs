//! A small extender over real HTTP: it records what it is asked and answers as it is told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// From path, which ends in the verb, and question to status and answer.
pub type Answer = dyn Fn(String, Value) -> BoxFuture<'static, (u16, Value)> + Send + Sync;

pub struct FakeExtender {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    serving: JoinHandle<()>,
}

impl FakeExtender {
    pub async fn start(answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self::start_with(move |verb, asked| futures::future::ready(answer(&verb, &asked)).boxed()).await
    }

    /// As [`Self::start`], for answers that take their time.
    pub async fn start_with(
        answer: impl Fn(String, Value) -> BoxFuture<'static, (u16, Value)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, record): (Arc<Answer>, _) = (Arc::new(answer), asked.clone());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, record) = (answer.clone(), record.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| reply(request, answer.clone(), record.clone()));
                    // A client that hangs up is none of our business.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, asked, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The questions so far, with their verbs.
    pub fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }

    /// The verbs so far.
    pub fn verbs(&self) -> Vec<String> {
        self.asked().into_iter().map(|(verb, _)| verb).collect()
    }
}

impl Drop for FakeExtender {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn reply(
    request: Request<Incoming>,
    answer: Arc<Answer>,
    record: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.method(), "POST");
    assert_eq!(request.headers()["content-type"], "application/json");
    let verb = request.uri().path().trim_start_matches('/').to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let question: Value = serde_json::from_slice(&body).unwrap();
    record.lock().unwrap().push((verb.clone(), question.clone()));
    let (status, value) = answer(verb, question).await;
    let body = Full::from(value.to_string());
    Ok(Response::builder().status(status).body(body).unwrap())
}

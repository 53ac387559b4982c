//! A watch as a body: one JSON line an event, for as long as it lasts.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::unfold;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tokio::sync::watch::Receiver;
use tokio::task::yield_now;

use super::super::fault::Fault;
use super::super::object::{Object, write_json};
use super::super::resources::ResourceType;
use super::super::store::{Watch, WatchEvent};
use super::{Body, Cut, response as response_with};

/// What says that the objects of a streaming list are complete.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

struct Stream {
    watch: Watch,
    /// Changes when all watches are told to end.
    end: Receiver<u64>,
    fault: Option<Fault>,
    told: usize,
}

/// The answer to a watch. `fault` may stall it or cut it.
pub(super) fn response(watch: Watch, end: Receiver<u64>, fault: Option<Fault>) -> Response<Body> {
    let stream = Stream { watch, end, fault, told: 0 };
    let lines = unfold(stream, |mut stream| async move {
        let line = stream.next_line().await?;
        Some((line.map(Frame::data), stream))
    });
    response_with(StatusCode::OK, "application/json", StreamBody::new(lines).boxed_unsync())
}

impl Stream {
    async fn next_line(&mut self) -> Option<Result<Bytes, Cut>> {
        match self.fault {
            Some(Fault::CutWatchAfter(events)) if self.told >= events => {
                // hyper writes out what it has only when there is nothing more for the moment; without
                // this pause the events told so far would be lost with the connection.
                yield_now().await;
                return Some(Err(Cut));
            }
            Some(Fault::Stall) => {
                // Ends with the server or with `close_watches`, as every other watch.
                let _ = self.end.changed().await;
                return None;
            }
            _ => {}
        }
        let event = tokio::select! {
            event = self.watch.next() => event?,
            _ = self.end.changed() => return None,
        };
        self.told += 1;
        Some(Ok(line(self.watch.kind(), &event)))
    }
}

fn line(kind: &Arc<ResourceType>, event: &WatchEvent) -> Bytes {
    let mut out = Vec::new();
    match event {
        WatchEvent::Added(object) => write_event(&mut out, "ADDED", object),
        WatchEvent::Modified(object) => write_event(&mut out, "MODIFIED", object),
        WatchEvent::Deleted(object) => write_event(&mut out, "DELETED", object),
        WatchEvent::Bookmark { version, initial_events_end } => {
            let mut metadata = json!({ "resourceVersion": version.to_string() });
            if *initial_events_end {
                metadata["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
            }
            let object = json!({ "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata });
            write_json(&mut out, &json!({ "type": "BOOKMARK", "object": object }));
        }
        WatchEvent::Error(refusal) => {
            write_json(&mut out, &json!({ "type": "ERROR", "object": refusal.to_status() }));
        }
    }
    out.push(b'\n');
    Bytes::from(out)
}

fn write_event(out: &mut Vec<u8>, what: &str, object: &Object) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(what.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    object.write(out, true);
    out.push(b'}');
}

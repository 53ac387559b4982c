//! Kubernetes Events about this Node: what `kubectl describe node` shows of its GPUs.
//!
//! Each change is written once and never counted up, so the right to create Events is enough. Nothing waits for
//! them: where the API server is away for long, the oldest of a few are written and the rest is in the log.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{Reason, trouble};
use crate::told::AtMostEvery;

/// Where Events about Nodes lie.
const NAMESPACE: &str = "default";
/// Who reports.
const REPORTER: &str = "stowage.dev/device-plugin";
/// Events that may wait for the API server.
const QUEUE: usize = 64;
/// How long one call of the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after a call that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How often one Event is tried.
const TRIES: u32 = 6;
/// The longest note that the API server takes, in bytes.
const NOTE_MAX_BYTES: usize = 1024;
/// The longest name of a reporter that it takes, in bytes.
const REPORTER_MAX_BYTES: usize = 128;
/// How often trouble is logged.
const LOG_EVERY: Duration = Duration::from_secs(600);

/// Something to tell.
#[derive(Debug)]
struct Note {
    reason: Reason,
    note: String,
    at: jiff::Timestamp,
}

/// Takes what is to be told.
#[derive(Debug, Clone)]
pub struct NodeEvents(mpsc::Sender<Note>);

/// Has what is to be told.
#[derive(Debug)]
pub struct NodeEventsInbox(mpsc::Receiver<Note>);

impl NodeEvents {
    /// A way to tell, and what [`NodeEventsInbox::write`] writes from. Dropped, the latter makes the former say nothing.
    pub fn new() -> (Self, NodeEventsInbox) {
        let (tell, told) = mpsc::channel(QUEUE);
        (Self(tell), NodeEventsInbox(told))
    }

    /// Something happened.
    pub fn tell(&self, reason: Reason, note: String) {
        // Full or nobody there: the log has it.
        let _ = self.0.try_send(Note { reason, note, at: jiff::Timestamp::now() });
    }
}

impl NodeEventsInbox {
    /// Writes what is told until nobody can tell any more.
    pub async fn write(mut self, client: kube::Client, node: &str) {
        let api: Api<Event> = Api::namespaced(client, NAMESPACE);
        let mut log = AtMostEvery::new(LOG_EVERY);
        let mut number: u32 = 0;
        while let Some(note) = self.0.recv().await {
            number = number.wrapping_add(1);
            let event = event(&note, node, number);
            for _ in 0..TRIES {
                let error = match timeout(CALL_TIMEOUT, api.create(&PostParams::default(), &event)).await {
                    Ok(Ok(_)) => break,
                    // Written by a try whose answer was lost.
                    Ok(Err(kube::Error::Api(status))) if status.code == 409 => break,
                    Ok(Err(error)) => (trouble::words(&error), trouble::cure(&error)),
                    Err(_) => (format!("no answer in {CALL_TIMEOUT:?}"), "it is tried again"),
                };
                if log.may() {
                    let (error, cure) = error;
                    tracing::warn!(node, error, cure, "An Event about the Node cannot be written.");
                }
                sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// The beginning of a text that fits, whole letters only.
fn cut(text: &str, most_bytes: usize) -> &str {
    let ends = text.char_indices().map(|(at, letter)| at + letter.len_utf8());
    &text[..ends.take_while(|end| *end <= most_bytes).last().unwrap_or(0)]
}

fn event(told: &Note, node: &str, number: u32) -> Event {
    // A Node's name may be as long as an Event's, which has more to say.
    let short = cut(node, REPORTER_MAX_BYTES).trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{short}.{:x}.{number}", told.at.as_nanosecond())),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        // As the kubelet does it: `kubectl describe node` looks for the name in the UID's place.
        regarding: Some(ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            api_version: Some("v1".to_owned()),
            ..ObjectReference::default()
        }),
        event_time: Some(MicroTime(told.at)),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(short.to_owned()),
        action: Some("Observed".to_owned()),
        reason: Some(told.reason.word().to_owned()),
        type_: Some(if told.reason.is_warning() { "Warning" } else { "Normal" }.to_owned()),
        note: Some(cut(&told.note, NOTE_MAX_BYTES).to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_the_api_server_is_cut() {
        let note = "é".repeat(600) + "x";
        let told = Note { reason: Reason::GpuUnhealthy, note, at: jiff::Timestamp::UNIX_EPOCH };
        let node = "n".repeat(127) + "." + &"m".repeat(125);
        let event = event(&told, &node, 1);
        assert_eq!(event.note.unwrap().len(), 1024);
        assert_eq!(event.metadata.name.unwrap(), "n".repeat(127) + ".0.1");
        assert_eq!(event.reporting_instance.unwrap().len(), 127);
        assert_eq!(event.regarding.unwrap().uid.unwrap(), node);
    }
}

//! What one reader is told, for as long as it reads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::time::Instant;

use super::hub::{Hub, Reader};
use super::scene::Cursor;

/// How often something is sent where nothing happens, so that both sides notice when the other is gone; and how often it is
/// asked whether a reader may still read.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// How soon a browser comes back whose stream ended, in milliseconds.
const RETRY: &str = "retry: 2000\n\n";

struct Told<F> {
    hub: Arc<Hub>,
    reader: Reader,
    names: bool,
    cursor: Cursor,
    greeted: bool,
    asked: Instant,
    may_go_on: F,
}

/// Everything first, then what changed, as long as `may_go_on` says so.
pub(super) fn events<F, A>(
    hub: Arc<Hub>,
    reader: Reader,
    names: bool,
    may_go_on: F,
) -> impl Stream<Item = Bytes> + Send
where
    F: Fn() -> A + Send,
    A: Future<Output = bool> + Send,
{
    let told = Told {
        hub,
        reader,
        names,
        cursor: Cursor::default(),
        greeted: false,
        asked: Instant::now(),
        may_go_on,
    };
    futures::stream::unfold(told, |mut told| async {
        if !std::mem::replace(&mut told.greeted, true) {
            return Some((Bytes::from_static(RETRY.as_bytes()), told));
        }
        loop {
            let heartbeat = told.asked.elapsed() >= HEARTBEAT;
            if heartbeat {
                told.asked = Instant::now();
                if !(told.may_go_on)().await {
                    return None;
                }
            }
            // Marked as seen before it is looked at, so that no change in between is missed.
            told.reader.version.borrow_and_update();
            let piece = told.hub.scene().next(&mut told.cursor, told.names);
            if let Some(piece) = piece {
                return Some((piece, told));
            }
            if heartbeat {
                return Some((Bytes::from_static(b":\n\n"), told));
            }
            let until = told.asked + HEARTBEAT;
            if let Ok(Err(_)) = tokio::time::timeout_at(until, told.reader.version.changed()).await {
                return None;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::clock::Now;
    use crate::state::Store;
    use crate::state::event::{Change, Event};
    use crate::synthetic;

    async fn next(stream: &mut (impl Stream<Item = Bytes> + Unpin)) -> String {
        let piece =
            tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("something is told");
        String::from_utf8(piece.expect("the stream goes on").to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_reader_is_told_all_and_then_what_happens() {
        let now = Now::read();
        let store = Arc::new(Store::new(synthetic::state(3, 1, now)));
        let hub = Arc::new(Hub::new(store.clone()));
        let _running = tokio::spawn(hub.clone().run());
        let stream = events(hub.clone(), hub.join().unwrap(), true, async || true);
        let mut stream = std::pin::pin!(stream);
        assert_eq!(next(&mut stream).await, RETRY);
        let mut all = String::new();
        while !(all.contains("event: ready") && all.contains("event: cluster")) {
            all += &next(&mut stream).await;
        }
        assert!(all.contains("event: begin") && all.contains("gpu-node-2"), "{all}");
        let mut pod = synthetic::pod("new", "uid-new", synthetic::WHOLE, 1);
        pod.node = "gpu-node-1".into();
        store.change(|state| state.apply(Event::Pod(Change::Applied(pod)), now)).unwrap();
        let told = next(&mut stream).await;
        assert!(
            told.contains("gpu-node-1") && told.contains("new") && !told.contains("gpu-node-2"),
            "{told}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_reader_may_not_read_any_more() {
        let hub = Arc::new(Hub::new(Arc::default()));
        let stream = events(hub.clone(), hub.join().unwrap(), true, async || false);
        let all: Vec<Bytes> = stream.collect().await;
        assert_eq!(all, [RETRY]);
        assert!(hub.join().is_some());
    }
}

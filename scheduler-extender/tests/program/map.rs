//! The map over a real socket, as no browser: who is answered, what a stream tells, and that it holds nothing up.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::*;

/// Reads until a text came.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&all).contains(text) {
            assert_ne!(stream.read_buf(&mut all).await.unwrap(), 0, "the stream goes on");
        }
    };
    assert!(tokio::time::timeout(DEADLINE, reading).await.is_ok(), "{text:?} did not come");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_map_is_told_live_to_this_machine_alone_and_holds_up_no_end() {
    let api = api_server().await;
    create_gpu_node(&api, "a");
    let map = free_port().await;
    let extender = Extender::ready_with(&api, &[&format!("--map-address={map}")]).await;
    // A name that is not this machine's, as an attacker's page would have it.
    let (status, body) = ask(map, "GET", "/", b"").await;
    assert!(status == 421 && body.contains("http://localhost"), "{status} {body}");
    let mut stream = TcpStream::connect(map).await.unwrap();
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let told = read_until(&mut stream, "event: ready").await;
    assert!(told.contains("content-security-policy: default-src 'none'"), "{told}");
    assert!(told.contains(r#"["a",0,"#) && told.contains("event: begin"), "{told}");
    let uid = create_pod(&api, "first", "nvidia.com/gpu", 1);
    assert_eq!(extender.bind("first", &uid, "a").await, "");
    let told = read_until(&mut stream, r#"["default","first"]"#).await;
    assert!(told.contains("event: nodes"), "{told}");
    assert_eq!(extender.terminate().await, 0, "whoever watches holds up nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_map_unless_it_is_asked_for() {
    let api = api_server().await;
    let mut extender = Extender::ready(&api).await;
    assert!(extender.wait_for_log("Started.").await.contains("map_address=off"));
}

//! The socket at which plugins register, in front of the kubelet stand-in's.
//!
//! NVIDIA's plugin, as every client of Go's gRPC that dials a path, sends that path as the `:authority` of its call.
//! The kubelet takes it; the stand-in's HTTP/2 library refuses it, as the standard has it. So registrations come in
//! here, where headers are not read: a connection does nothing but call `Register`. Both plugins register this way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use kubelet_api::device_plugin::RegisterRequest;
use kubelet_api::device_plugin::registration_client::RegistrationClient;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

/// What a client says first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest frame that a client may send while we ask for no other size.
const FRAME_MAX: usize = 16_384;
/// Before each gRPC message: one byte whether it is compressed, four of its length.
const MESSAGE_HEAD: usize = 5;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200` and `content-type: application/grpc`, in HPACK with its static table.
const ANSWERED: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// A message without a field.
const EMPTY: &[u8] = &[0; MESSAGE_HEAD];
/// `grpc-status` 0 and 2: well, and not.
const WELL: &[u8] = b"\0\x0bgrpc-status\x010";
const UNKNOWN: &[u8] = b"\0\x0bgrpc-status\x012";

/// How each resource was registered last.
pub(crate) type Registrations = Arc<Mutex<BTreeMap<String, RegisterRequest>>>;

/// Open until it is dropped; its file stays behind, as a killed kubelet's does.
pub(crate) struct Door(JoinHandle<()>);

impl Door {
    /// Opens the door to a kubelet's socket; what comes through is noted.
    pub(crate) fn open(path: &Path, kubelet: PathBuf, noted: Registrations) -> Result<Self> {
        let listener = UnixListener::bind(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(tokio::spawn(async move {
            // Connections end with the door.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (kubelet, noted) = (kubelet.clone(), noted.clone());
                // A client that has its answer hangs up, perhaps in the middle of what is said next.
                connections.spawn(async move { serve(stream, &kubelet, &noted).await });
            }
        })))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(mut stream: UnixStream, kubelet: &Path, noted: &Registrations) -> Result<()> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    send(&mut stream, SETTINGS, 0, 0, &[]).await?;
    let mut message = Vec::new();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return Ok(());
        }
        let [a, b, c, kind, flags, id @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > FRAME_MAX {
            bail!("a frame of {length} bytes");
        }
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        match kind {
            SETTINGS if flags & ACK == 0 => send(&mut stream, SETTINGS, ACK, 0, &[]).await?,
            PING if flags & ACK == 0 => send(&mut stream, PING, ACK, 0, &payload).await?,
            GOAWAY => return Ok(()),
            DATA => {
                message.extend(payload);
                if flags & END_STREAM != 0 {
                    let id = u32::from_be_bytes(id);
                    let registered = register(kubelet, &message, noted).await;
                    send(&mut stream, HEADERS, END_HEADERS, id, ANSWERED).await?;
                    send(&mut stream, DATA, 0, id, EMPTY).await?;
                    let status = if registered.is_ok() { WELL } else { UNKNOWN };
                    send(&mut stream, HEADERS, END_HEADERS | END_STREAM, id, status).await?;
                    registered?;
                    message.clear();
                }
            }
            _ => {}
        }
    }
}

async fn send(stream: &mut UnixStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> Result<()> {
    let [_, a, b, c] = u32::try_from(payload.len())?.to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    Ok(stream.write_all(&frame).await?)
}

async fn register(kubelet: &Path, message: &[u8], noted: &Registrations) -> Result<()> {
    let request = RegisterRequest::decode(message.get(MESSAGE_HEAD..).context("no message")?)?;
    let note = (request.resource_name.clone(), request.clone());
    noted.lock().unwrap_or_else(PoisonError::into_inner).extend([note]);
    let channel = kubelet_api::endpoint(kubelet)?.connect().await?;
    RegistrationClient::new(channel).register(request).await?;
    Ok(())
}

//! A port of this machine, and behind it the cluster's door.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;

use super::cluster::Door;

/// The port, on the loopback alone.
pub struct Gate(TcpListener);

impl Gate {
    /// Takes the port, before anything is started for it.
    ///
    /// # Errors
    /// Where somebody has it.
    pub async fn open(port: u16) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await;
        Ok(Self(listener.with_context(|| format!("cannot listen on {address}: choose another --port"))?))
    }

    /// Where kubectl is to go.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn address(&self) -> Result<SocketAddr> {
        self.0.local_addr().context("cannot tell on which port we listen")
    }

    /// Lets everybody through; the API server's certificate and its clients' are what guards it.
    ///
    /// # Errors
    /// Where the port cannot be listened on any more.
    pub async fn serve(&self, door: &Door) -> Result<()> {
        loop {
            let (mut visitor, _) = self.0.accept().await.context("cannot accept")?;
            // Whoever finds the door shut sees a closed connection; that the cluster has ended is told elsewhere.
            let Ok(mut inside) = door.enter().await else { continue };
            tokio::spawn(async move {
                let _ = copy_bidirectional(&mut visitor, &mut inside).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixListener};

    use super::*;

    #[tokio::test]
    async fn what_is_said_at_the_gate_is_heard_behind_the_door() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("door")).unwrap();
        let door = Door::in_folder(folder.path()).unwrap();
        let gate = Gate::open(0).await.unwrap();
        let talk = async {
            let mut outside = TcpStream::connect(gate.address().unwrap()).await.unwrap();
            let (mut inside, _) = listener.accept().await.unwrap();
            outside.write_all(b"ask").await.unwrap();
            let mut heard = [0; 3];
            inside.read_exact(&mut heard).await.unwrap();
            inside.write_all(&heard).await.unwrap();
            drop(inside);
            let mut answer = String::new();
            outside.read_to_string(&mut answer).await.unwrap();
            answer
        };
        tokio::select! {
            answer = talk => assert_eq!(answer, "ask"),
            ended = gate.serve(&door) => panic!("{ended:?}"),
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_told_with_the_cure() {
        let first = Gate::open(0).await.unwrap();
        let error = Gate::open(first.address().unwrap().port()).await.err().unwrap();
        assert!(error.to_string().contains("choose another --port"), "{error}");
    }
}

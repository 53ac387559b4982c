//! The sockets that others connect to.

use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddr};

use anyhow::Context;
use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket};

use crate::Fault;

/// Connections that wait to be accepted, as many as tokio lets wait.
const BACKLOG: u32 = 1024;

/// Takes an address, before anything else is started.
///
/// # Errors
/// A [`Fault`] that names the address, such as a port that is in use.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Fault> {
    listen(address)
        .await
        .with_context(|| {
            format!("cannot listen on {address}: is another program on that port? Choose another address")
        })
        .map_err(Fault::unavailable)
}

/// Takes an address. An unspecified one (`0.0.0.0`, `[::]`) means all addresses of both families, as it does to the components of
/// Kubernetes: in a cluster with IPv6 alone the kubelet's probes come to an IPv6 address.
///
/// # Errors
/// The system's own.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip().is_unspecified() {
        match both_families(address.port()) {
            Err(error) if error.kind() != ErrorKind::AddrInUse => {} // this machine has no IPv6
            taken => return taken,
        }
    }
    TcpListener::bind(address).await
}

fn both_families(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    set_ipv6_v6only(&socket, false)?;
    socket.set_reuseaddr(true)?; // what was closed a moment ago does not keep the port
    socket.bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn an_unspecified_address_is_reached_by_both_families() {
        for unspecified in ["0.0.0.0:0", "[::]:0"] {
            let listener = listen(unspecified.parse().unwrap()).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            if let Err(error) = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await {
                assert_ne!(error.kind(), ErrorKind::ConnectionRefused, "{unspecified}");
            }
            let again = listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AddrInUse);
        }
    }

    #[tokio::test]
    async fn another_address_is_taken_alone_and_named_where_it_cannot_be_had() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, address.port())).await.is_err());
        let error = bind(address).await.unwrap_err();
        assert!(format!("{error:#}").contains(&address.to_string()), "{error:#}");
    }
}

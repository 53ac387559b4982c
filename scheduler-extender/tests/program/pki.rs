//! Certificates, where the program finds them, and clients that have some.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::harness::DEADLINE;

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The extender's, by the Service's name.
    pub fn server(&self) -> Identity {
        self.sign(
            CertificateParams::new(vec![SERVICE.to_owned()]).unwrap(),
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// kube-scheduler's, as kubeadm names it.
    pub fn scheduler(&self) -> Identity {
        self.client("system:kube-scheduler", 2100)
    }

    /// Somebody's, until the first day of that year.
    pub fn client(&self, name: &str, until: i32) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(until, 1, 1);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Identity {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

const SERVICE: &str = "stowage-scheduler-extender.stowage-system.svc";

/// A folder that changes as the kubelet changes a mounted Secret: by a link that is swapped.
pub struct Secret {
    folder: tempfile::TempDir,
    version: u32,
}

impl Secret {
    pub fn new(server: &Identity, client_ca: &str) -> Self {
        let mut secret = Self { folder: tempfile::tempdir().unwrap(), version: 0 };
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            std::os::unix::fs::symlink(Path::new("..data").join(name), secret.at(name)).unwrap();
        }
        secret.swap(server, client_ca);
        secret
    }

    /// Other files take the place of those that are there, all at once.
    pub fn swap(&mut self, server: &Identity, client_ca: &str) {
        self.version += 1;
        let version = format!("..{}", self.version);
        std::fs::create_dir(self.at(&version)).unwrap();
        for (name, text) in
            [("tls.crt", &*server.certificate), ("tls.key", &server.key), ("ca.crt", client_ca)]
        {
            std::fs::write(self.at(&version).join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(&version, self.at("..new")).unwrap();
        std::fs::rename(self.at("..new"), self.at("..data")).unwrap();
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The flags that name the files.
    pub fn flags(&self) -> Vec<String> {
        [("tls-cert-file", "tls.crt"), ("tls-private-key-file", "tls.key"), ("client-ca-file", "ca.crt")]
            .map(|(flag, name)| format!("--{flag}={}", self.at(name).display()))
            .to_vec()
    }
}

/// Somebody who calls the verbs over TLS.
#[derive(Clone)]
pub struct Client {
    connector: TlsConnector,
}

impl Client {
    /// Trusts these authorities, and shows that certificate.
    pub fn new(trusts: &[&str], shows: Option<&Identity>) -> Self {
        Self::speaking(trusts, shows, rustls::DEFAULT_VERSIONS)
    }

    pub fn speaking(
        trusts: &[&str],
        shows: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for authority in trusts {
            roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shows {
            None => config.with_no_client_auth(),
            Some(identity) => config
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        // As kube-scheduler's client does.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { connector: Arc::new(config).into() }
    }

    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<Connection> {
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            self.connector.connect(ServerName::try_from(SERVICE).unwrap(), stream).await
        };
        Ok(Connection(tokio::time::timeout(DEADLINE, connecting).await.expect("in time")?))
    }

    /// One request over a connection of its own.
    pub async fn post(&self, address: SocketAddr, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        self.connect(address).await?.post(path, body).await
    }
}

/// A status, the head and the body of an answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A connection that is kept.
pub struct Connection(TlsStream<TcpStream>);

impl Connection {
    /// The certificate that the server has shown.
    pub fn server(&self) -> Vec<u8> {
        self.0.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    pub async fn post(&mut self, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        tokio::time::timeout(DEADLINE, self.talk(path, body)).await.expect("in time")
    }

    async fn talk(&mut self, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        self.0.write_all(&[head.as_bytes(), body].concat()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).await?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Answer { status, head, body: String::from_utf8(body).unwrap() })
    }
}

//! The three files: read with a bound, and made into what a handshake needs.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use super::Current;
use super::args::{CERTIFICATE, CLIENT_CA, KEY};
use super::clients::Named;

/// The most that is read of one file, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

/// Why TLS cannot be had as the flags ask for it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Some of the flags are given, others not.
    #[error(
        "--tls-cert-file, --tls-private-key-file and --client-ca-file are given together, or none of them: without {0} the verbs cannot be served over TLS"
    )]
    Incomplete(String),
    /// Names, and nobody to show them.
    #[error(
        "--allowed-client-names says whose client certificates are taken: give --client-ca-file with it, or leave it out"
    )]
    NamesAlone,
    /// A file cannot be read.
    #[error("{flag}: cannot read {}: is the Secret mounted there, and may this program read it?", path.display())]
    Read {
        /// Which file.
        flag: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A file is no such file.
    #[error("{flag}: {} is larger than {FILE_MAX} bytes: no file of certificates is", path.display())]
    TooLarge {
        /// Which file.
        flag: &'static str,
        /// Where it is.
        path: PathBuf,
    },
    /// A file has nothing of what should be in it, or something that is broken.
    #[error("{flag}: {} has no {wanted} that can be read: {why}", path.display())]
    Content {
        /// Which file.
        flag: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// What is there instead.
        why: String,
    },
    /// Certificate and key are of different pairs.
    #[error(
        "the key in {} is not that of the first certificate in {}: put the server's own certificate first, and take its key",
        key.display(), certificate.display()
    )]
    Pair {
        /// Where the certificate is.
        certificate: PathBuf,
        /// Where the key is.
        key: PathBuf,
    },
    /// The library refuses it for another reason.
    #[error("{CERTIFICATE}: {} cannot be used", path.display())]
    Other {
        /// Where the certificate is.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// Where the files are, and whose certificates are taken.
#[derive(Debug, Clone)]
pub struct Files {
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The clients' authorities.
    pub client_ca: PathBuf,
    /// Whose certificates are taken; empty: everybody's.
    pub allowed: Arc<[String]>,
}

/// What the files have in them.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(&self) -> Result<Content, TlsError> {
        Ok(Content {
            certificate: read(CERTIFICATE, &self.certificate)?,
            key: read(KEY, &self.key)?,
            client_ca: read(CLIENT_CA, &self.client_ca)?,
        })
    }

    /// What a handshake needs, of this content.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn make(&self, content: &Content) -> Result<Current, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(CERTIFICATE, &self.certificate, &content.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&content.key);
        let key = key.map_err(|error| bad(KEY, &self.key, "private key", explain(&error, "PRIVATE KEY")))?;
        let clients = self.clients(content, &provider)?;
        let other = |source| TlsError::Other { path: self.certificate.clone(), source };
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(other)?
            .with_client_cert_verifier(clients.clone())
            .with_single_cert(chain, key);
        let mut server = server.map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone() }
            }
            // What rustls says of a key that it does not understand.
            rustls::Error::General(why) => bad(KEY, &self.key, "private key", why),
            source => other(source),
        })?;
        // HTTP/1.1 alone: kube-scheduler's client would speak HTTP/2 where it is offered.
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Who is let in shows their certificate each time.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Current { server: Arc::new(server), clients })
    }

    fn clients(&self, content: &Content, provider: &Arc<CryptoProvider>) -> Result<Arc<Named>, TlsError> {
        let bad = |why: String| bad(CLIENT_CA, &self.client_ca, "certificate of an authority", why);
        let mut roots = RootCertStore::empty();
        for certificate in certificates(CLIENT_CA, &self.client_ca, &content.client_ca)? {
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        let signed = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build();
        let signed = signed.map_err(|error| bad(error.to_string()))?;
        Ok(Arc::new(Named::new(signed, self.allowed.clone())))
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut content));
    match read {
        Ok(_) if content.len() as u64 > FILE_MAX => Err(TlsError::TooLarge { flag, path: path.to_owned() }),
        Ok(_) => Ok(content),
        Err(source) => Err(TlsError::Read { flag, path: path.to_owned(), source }),
    }
}

/// All certificates of a file, of which there is at least one.
fn certificates(
    flag: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |error: &pem::Error| bad(flag, path, "certificate", explain(error, "CERTIFICATE"));
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(bad(&pem::Error::NoItemsFound)),
        found => found.map_err(|error| bad(&error)),
    }
}

fn bad(flag: &'static str, path: &Path, wanted: &'static str, why: String) -> TlsError {
    TlsError::Content { flag, path: path.to_owned(), wanted, why }
}

fn explain(error: &pem::Error, section: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("it should be PEM, with -----BEGIN {section}-----"),
        other => other.to_string(),
    }
}

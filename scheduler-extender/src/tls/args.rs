//! The flags, with the names that Kubernetes's own programs have for them.

use std::path::PathBuf;

use clap::Args;

use super::files::{Files, TlsError};

/// The flags.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArgs {
    /// The certificate that the verbs are served with, and those between it and its authority; PEM. Goes with the next two.
    #[arg(long, env = "TLS_CERT_FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// The private key of that certificate; PEM.
    #[arg(long, env = "TLS_PRIVATE_KEY_FILE")]
    pub tls_private_key_file: Option<PathBuf>,
    /// The authorities of kube-scheduler's certificate; PEM. Who calls the verbs must show one that they have signed.
    #[arg(long, env = "CLIENT_CA_FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Whose certificates are taken, by common name or DNS name, with commas between; empty: all that those authorities
    /// have signed.
    #[arg(long, env = "ALLOWED_CLIENT_NAMES", value_delimiter = ',')]
    pub allowed_client_names: Vec<String>,
}

impl TlsArgs {
    /// The files, where there are to be any.
    ///
    /// # Errors
    /// [`TlsError`], where only some of the flags are given.
    pub fn files(&self) -> Result<Option<Files>, TlsError> {
        let allowed: Vec<String> =
            self.allowed_client_names.iter().filter(|name| !name.is_empty()).cloned().collect();
        let flags = [
            (CERTIFICATE, &self.tls_cert_file),
            (KEY, &self.tls_private_key_file),
            (CLIENT_CA, &self.client_ca_file),
        ];
        match flags.map(|(_, path)| path.clone()) {
            [Some(certificate), Some(key), Some(client_ca)] => {
                Ok(Some(Files { certificate, key, client_ca, allowed: allowed.into() }))
            }
            [None, None, None] if allowed.is_empty() => Ok(None),
            [None, None, None] => Err(TlsError::NamesAlone),
            _ => {
                let missing = flags.iter().filter(|(_, path)| path.is_none()).map(|(flag, _)| *flag);
                Err(TlsError::Incomplete(missing.collect::<Vec<_>>().join(" and ")))
            }
        }
    }
}

pub(super) const CERTIFICATE: &str = "--tls-cert-file";
pub(super) const KEY: &str = "--tls-private-key-file";
pub(super) const CLIENT_CA: &str = "--client-ca-file";

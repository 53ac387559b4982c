//! Certificates of the test cluster: one authority, and what it signs.
//!
//! Elliptic keys (P-256), because they are made in no time. Valid long enough for any run and worth nothing
//! outside its network namespace.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The certificate authority that every component trusts.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The keys that sign and check ServiceAccount tokens, as files.
#[derive(Clone, Debug)]
pub(crate) struct TokenKeys {
    pub(crate) private: PathBuf,
    pub(crate) public: PathBuf,
}

impl Authority {
    /// Makes a new authority; it and everything it signs lie in `folder`.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        parameters.distinguished_name.push(DnType::CommonName, "stowage-test-cluster");
        let key = KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?;
        let authority = Self { folder: folder.to_owned(), issuer: Issuer::new(parameters, key) };
        write(&authority.certificate(), &certificate.pem())?;
        Ok(authority)
    }

    /// The authority's own certificate, as a file.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// A client certificate: to the API server, `user` in `groups`.
    pub(crate) fn client(&self, file: &str, user: &str, groups: &[&str]) -> Result<Identity> {
        let mut parameters = CertificateParams::default();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            parameters.distinguished_name.push(DnType::OrganizationName, *group);
        }
        self.sign(file, parameters)
    }

    /// A server certificate for `names`: host names and IP addresses.
    pub(crate) fn server(&self, file: &str, names: &[&str]) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names)?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(file, parameters)
    }

    /// A pair of keys for ServiceAccount tokens; no certificate.
    pub(crate) fn token_keys(&self) -> Result<TokenKeys> {
        let keys =
            TokenKeys { private: self.folder.join("tokens.key"), public: self.folder.join("tokens.pub") };
        let pair = KeyPair::generate()?;
        write(&keys.private, &pair.serialize_pem())?;
        write(&keys.public, &pair.public_key_pem())?;
        Ok(keys)
    }

    fn sign(&self, file: &str, mut parameters: CertificateParams) -> Result<Identity> {
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            certificate: self.folder.join(file).with_added_extension("crt"),
            key: self.folder.join(file).with_added_extension("key"),
        };
        write(&identity.certificate, &certificate.pem())?;
        write(&identity.key, &key.serialize_pem())?;
        Ok(identity)
    }
}

fn write(path: &Path, pem: &str) -> Result<()> {
    fs::write(path, pem).with_context(|| format!("cannot write {}", path.display()))
}

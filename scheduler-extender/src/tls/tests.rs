//! Files in a folder that change under a [`Tls`], and certificates whose time passes.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

use super::*;

/// An authority, and what it signs.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate and its key.
    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.not_after = date_time_ymd(2100, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

struct Setup {
    folder: tempfile::TempDir,
    files: Files,
}

/// A server's certificate, and clients that `clients` has signed.
fn setup(clients: &Authority, allowed: &[&str]) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
    let files = Files {
        certificate: at("tls.crt"),
        key: at("tls.key"),
        client_ca: at("ca.crt"),
        allowed: allowed.into(),
    };
    let setup = Setup { folder, files };
    setup.new_pair();
    setup.write("ca.crt", &clients.pem);
    setup
}

impl Setup {
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn new_pair(&self) {
        let (certificate, key) = Authority::new("servers").sign("us", ExtendedKeyUsagePurpose::ServerAuth);
        self.write("tls.crt", &certificate.pem());
        self.write("tls.key", &key.serialize_pem());
    }

    fn refused(&self) -> String {
        chain(&Tls::load(self.files.clone()).err().expect("it is refused"))
    }
}

fn at(seconds_from_now: i64) -> UnixTime {
    let now = UnixTime::now().as_secs();
    UnixTime::since_unix_epoch(Duration::from_secs(now.checked_add_signed(seconds_from_now).unwrap()))
}

#[test]
fn files_that_cannot_be_used_say_which_and_what_would_be_right() {
    let clients = Authority::new("clients");
    let path = |setup: &Setup, name: &str| setup.folder.path().join(name).display().to_string();
    #[track_caller]
    fn says(said: &str, wants: &[&str]) {
        for want in wants {
            assert!(said.contains(want), "{want} is not in: {said}");
        }
    }
    for (name, flag, section) in [
        ("tls.crt", "--tls-cert-file", "-----BEGIN CERTIFICATE-----"),
        ("tls.key", "--tls-private-key-file", "-----BEGIN PRIVATE KEY-----"),
        ("ca.crt", "--client-ca-file", "-----BEGIN CERTIFICATE-----"),
    ] {
        let setup = setup(&clients, &[]);
        setup.write(name, "nonsense");
        says(&setup.refused(), &[flag, &path(&setup, name), section]);
        setup.write(name, &" ".repeat(1024 * 1024 + 1));
        says(&setup.refused(), &[flag, &path(&setup, name), "larger than 1048576 bytes"]);
        std::fs::remove_file(setup.folder.path().join(name)).unwrap();
        says(&setup.refused(), &[flag, &path(&setup, name), "is the Secret mounted there"]);
    }
    let setup = setup(&clients, &[]);
    setup.write("tls.key", &KeyPair::generate().unwrap().serialize_pem());
    says(&setup.refused(), &["is not that of the first certificate", "tls.crt", "tls.key"]);
    setup.write("tls.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    says(&setup.refused(), &["--tls-cert-file"]);
}

#[test]
fn the_three_files_are_given_together_or_not_at_all() {
    let given = |which: [bool; 3], names: &[&str]| {
        let path = |given: bool| given.then(|| Path::new("/x").to_owned());
        let args = TlsArgs {
            tls_cert_file: path(which[0]),
            tls_private_key_file: path(which[1]),
            client_ca_file: path(which[2]),
            allowed_client_names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        args.files().map(|files| files.is_some()).map_err(|error| error.to_string())
    };
    assert_eq!((given([false; 3], &[]), given([true; 3], &[])), (Ok(false), Ok(true)));
    assert_eq!(given([false; 3], &[""]), Ok(false), "an empty variable is none");
    let said = given([true, false, false], &[]).unwrap_err();
    assert!(said.contains("without --tls-private-key-file and --client-ca-file the"), "{said}");
    assert!(given([true, true, false], &[]).unwrap_err().contains("without --client-ca-file the"));
    assert!(given([false; 3], &["a"]).unwrap_err().contains("give --client-ca-file with it"));
}

#[test]
fn new_files_are_used_and_bad_ones_leave_the_last_good_ones_in_place() {
    let setup = setup(&Authority::new("clients"), &[]);
    let tls = Tls::load(setup.files.clone()).unwrap();
    let first = tls.current();
    assert_eq!(tls.look(), Look::Same);
    setup.new_pair();
    assert_eq!((tls.look(), tls.look()), (Look::Taken, Look::Same));
    let second = tls.current();
    assert!(!Arc::ptr_eq(&first, &second));
    // Half of a renewal, as it may be seen while it is written: nobody complains before it has stayed.
    setup.write("tls.key", &KeyPair::generate().unwrap().serialize_pem());
    assert_eq!(tls.look(), Look::Odd);
    let Look::Refused(Some(why)) = tls.look() else { panic!("it is told") };
    assert!(why.contains("is not that of the first certificate"), "{why}");
    assert_eq!(tls.look(), Look::Refused(None), "once");
    assert!(Arc::ptr_eq(&second, &tls.current()));
    std::fs::remove_file(setup.folder.path().join("ca.crt")).unwrap();
    assert_eq!(tls.look(), Look::Odd);
    assert!(matches!(tls.look(), Look::Refused(Some(why)) if why.contains("cannot read")));
    setup.write("ca.crt", &Authority::new("others").pem);
    setup.new_pair();
    assert_eq!(tls.look(), Look::Taken);
}

#[test]
fn a_client_that_was_accepted_is_accepted_no_more_when_its_time_is_over_or_its_authority_gone() {
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let setup = setup(&clients, &[]);
    let tls = Tls::load(setup.files.clone()).unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_after = date_time_ymd(2090, 1, 1);
    let key = KeyPair::generate().unwrap();
    let shown = [params.signed_by(&key, &clients.issuer).unwrap().der().clone()];
    assert!(tls.accepts(&shown, at(0)).is_ok());
    let later = UnixTime::since_unix_epoch(Duration::from_secs(3_800_000_000));
    assert!(tls.accepts(&shown, later).unwrap_err().to_string().contains("expired"));
    // Both authorities, as while one takes the place of the other; then the new one alone.
    setup.write("ca.crt", &format!("{}{}", others.pem, clients.pem));
    assert_eq!(tls.look(), Look::Taken);
    assert!(tls.accepts(&shown, at(0)).is_ok());
    setup.write("ca.crt", &others.pem);
    assert_eq!(tls.look(), Look::Taken);
    assert!(tls.accepts(&shown, at(0)).is_err());
    assert!(tls.accepts(&[], at(0)).is_err());
}

#[test]
fn a_name_that_is_not_allowed_and_a_servers_certificate_are_refused() {
    let clients = Authority::new("clients");
    let accepted = |allowed: &[&str], name: &str, usage| {
        let setup = setup(&clients, allowed);
        let shown = [clients.sign(name, usage).0.der().clone()];
        Tls::load(setup.files.clone()).unwrap().accepts(&shown, at(0)).is_ok()
    };
    let client = || ExtendedKeyUsagePurpose::ClientAuth;
    assert!(accepted(&[], "anybody", client()));
    assert!(accepted(&["system:kube-scheduler"], "system:kube-scheduler", client()));
    assert!(accepted(&["a", "localhost"], "anybody", client()), "by DNS name");
    assert!(!accepted(&["system:kube-scheduler"], "system:node:a", client()));
    assert!(!accepted(&["system:kube-scheduler"], "system:kube-scheduler2", client()));
    assert!(!accepted(&[], "anybody", ExtendedKeyUsagePurpose::ServerAuth));
}

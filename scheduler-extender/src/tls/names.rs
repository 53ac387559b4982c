//! The names in a certificate: its common name, by which Kubernetes knows its users, and its DNS names.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// All names of a certificate; `None` where it cannot be read.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let dns = certificate.valid_dns_names().map(str::to_owned);
    Some(common_names(certificate.subject()).chain(dns).collect())
}

/// The common names of a subject, as DER without its outermost tag: a row of sets of pairs of a kind and a value.
fn common_names(subject: &[u8]) -> impl Iterator<Item = String> {
    let pairs = Elements(subject).filter(|(tag, _)| *tag == SET).flat_map(|(_, set)| Elements(set));
    pairs.filter_map(|(tag, pair)| {
        let mut fields = Elements(pair);
        let ((kind, oid), (text, value)) = (fields.next()?, fields.next()?);
        let is_common_name = tag == SEQUENCE && kind == OBJECT_IDENTIFIER && oid == COMMON_NAME;
        if is_common_name && TEXTS.contains(&text) { String::from_utf8(value.to_vec()).ok() } else { None }
    })
}

const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// UTF8String, PrintableString, IA5String: those whose bytes are UTF-8.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The elements of DER that stand side by side, as tag and content. It ends where something is no DER.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => rest.split_first().map(|(&length, rest)| (usize::from(length), rest))?,
            0x82 => rest
                .split_first_chunk()
                .map(|(&length, rest)| (usize::from(u16::from_be_bytes(length)), rest))?,
            // A name of more than 64 KiB.
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(common: &[&str], dns: &[&str]) -> CertificateDer<'static> {
        let mut params =
            CertificateParams::new(dns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "kube-scheduler's");
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_has_its_common_name_and_its_dns_names() {
        let all = |common: &[&str], dns: &[&str]| names(&certificate(common, dns)).unwrap();
        assert_eq!(all(&["system:kube-scheduler"], &[]), ["system:kube-scheduler"]);
        assert_eq!(all(&["ä"], &["a.example", "b.example"]), ["ä", "a.example", "b.example"]);
        assert_eq!(all(&[], &["a.example"]), ["a.example"], "an organization is no name");
        assert_eq!(all(&[&"long".repeat(40)], &[]), ["long".repeat(40)]);
        assert_eq!(names(&CertificateDer::from_slice(b"nonsense")), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = common_names(&bytes).count();
            let _ = names(&CertificateDer::from(bytes));
        }

        #[test]
        fn no_certificate_that_was_tampered_with_makes_it_panic(at in 0_usize..400, to in any::<u8>()) {
            let mut der = certificate(&["a"], &["b.example"]).to_vec();
            let at = at % der.len();
            der[at] = to;
            let _ = names(&CertificateDer::from(der));
        }
    }
}

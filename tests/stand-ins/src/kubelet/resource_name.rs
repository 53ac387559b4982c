//! Which names the kubelet takes for an extended resource.
//!
//! `Register` refuses the others. The rule is `IsExtendedResourceName` of
//! `k8s.io/kubernetes/pkg/apis/core/v1/helper/helpers.go`.

/// The longest name after the slash, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// The longest DNS subdomain, in bytes.
const MAX_SUBDOMAIN_BYTES: usize = 253;

/// What a quota puts before a resource name; the name must stay valid with it.
const QUOTA_PREFIX: &str = "requests.";

/// Whether `name` is an extended resource: `domain/name`, outside `kubernetes.io`.
pub(super) fn is_extended(name: &str) -> bool {
    let Some((domain, rest)) = name.split_once('/') else { return false };
    !name.contains("kubernetes.io/")
        && !name.starts_with(QUOTA_PREFIX)
        && is_subdomain(&format!("{QUOTA_PREFIX}{domain}"))
        && rest.len() <= MAX_NAME_BYTES
        && is_framed(rest, |byte| byte.is_ascii_alphanumeric(), b"-_.")
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN_BYTES
        && text
            .split('.')
            .all(|label| is_framed(label, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), b"-"))
}

/// Not empty, `ends` at both ends, and `ends` or one of `between` elsewhere.
fn is_framed(text: &str, ends: impl Fn(&u8) -> bool, between: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(&ends)
        && bytes.last().is_some_and(&ends)
        && bytes.iter().all(|byte| ends(byte) || between.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::is_extended;

    #[test]
    fn names_under_a_vendors_domain_are_extended_resources() {
        for name in ["nvidia.com/gpu", "nvidia.com/mig-1g.5gb.me", "a/b", "x-1.io/A_b.c-9"] {
            assert!(is_extended(name), "{name}");
        }
    }

    #[test]
    fn native_malformed_and_overlong_names_are_not() {
        let long_name = format!("nvidia.com/{}", "x".repeat(64));
        let long_domain = format!("{}.com/gpu", "x.".repeat(121));
        let names = [
            "gpu",
            "",
            "/",
            "/gpu",
            "nvidia.com/",
            "cpu",
            "kubernetes.io/gpu",
            "a.kubernetes.io/gpu",
            "requests.nvidia.com/gpu",
            "NVIDIA.com/gpu",
            "nvidia..com/gpu",
            "nvidia.com/gpu/1",
            "nvidia.com/-gpu",
            "nvidia.com/gpu-",
            "nvidia.com/g u",
            "nvidia_.com/gpu",
            &long_name,
            &long_domain,
        ];
        for name in names {
            assert!(!is_extended(name), "{name:?}");
        }
    }
}

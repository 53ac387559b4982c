//! What the API server's errors mean, and what to do about them.

use kube::Error;

/// Where the rights are granted.
const RIGHTS: &str = "apply deploy/manifests/device-plugin-rbac.yaml";

/// A hint for an error that somebody must mend; empty for one that passes by itself.
pub(crate) fn cure(error: &Error) -> &'static str {
    match error {
        Error::Api(status) if status.code == 403 => RIGHTS,
        Error::Api(status) if status.code == 401 => {
            "the API server does not know this program's token: is its ServiceAccount still there, and the token in \
             KUBECONFIG current?"
        }
        _ => "it is tried again",
    }
}

/// An error with its causes, each once.
pub(crate) fn words(error: &Error) -> String {
    if let Error::Api(status) = error {
        return format!("{} (HTTP {})", status.message, status.code);
    }
    let mut words = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(source) = cause {
        let text = source.to_string();
        if !words.contains(&text) {
            words.push_str(": ");
            words.push_str(&text);
        }
        cause = source.source();
    }
    words
}

//! What a URL names.

use http::{Method, Uri};
use percent_encoding::percent_decode_str;

use super::super::audit::Attributes;
use super::super::resources::Gvr;
use super::parameters::Parameters;

/// What a request is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// `/livez`, `/readyz`, `/healthz`.
    Health,
    /// `/version`.
    Version,
    /// `/api`: the versions of the core group.
    CoreVersions,
    /// `/apis`: all other groups.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`: the resources of one version of a group.
    Resources { group: String, version: String },
    /// An object, or objects.
    Objects(ObjectPath),
    /// Nothing that this server knows.
    Unknown,
}

/// The path of a resource, an object or a sub-resource.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ObjectPath {
    pub(super) resource: Gvr,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

pub(super) fn target(uri: &Uri) -> Target {
    let segments: Vec<String> = uri
        .path()
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments[..] {
        ["livez" | "readyz" | "healthz", ..] => Target::Health,
        ["version"] => Target::Version,
        ["api"] => Target::CoreVersions,
        ["apis"] => Target::Groups,
        ["apis", group] => Target::Group(group.to_owned()),
        ["api", version] => Target::Resources { group: String::new(), version: version.to_owned() },
        ["apis", group, version] => {
            Target::Resources { group: group.to_owned(), version: version.to_owned() }
        }
        ["api", version, ref rest @ ..] => objects("", version, rest),
        ["apis", group, version, ref rest @ ..] => objects(group, version, rest),
        _ => Target::Unknown,
    }
}

fn objects(group: &str, version: &str, rest: &[&str]) -> Target {
    let (namespace, rest) = match rest {
        // `namespaces/n/status` is a sub-resource of the namespace, `namespaces/n/pods` its pods.
        ["namespaces", _, "status" | "finalize"] | ["namespaces"] | ["namespaces", _] => (None, rest),
        ["namespaces", namespace, rest @ ..] => (Some(*namespace), rest),
        _ => (None, rest),
    };
    let (resource, name, subresource) = match *rest {
        [resource] => (resource, None, None),
        [resource, name] => (resource, Some(name), None),
        [resource, name, subresource] => (resource, Some(name), Some(subresource)),
        _ => return Target::Unknown,
    };
    Target::Objects(ObjectPath {
        resource: Gvr {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            resource: resource.to_owned().into(),
        },
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        subresource: subresource.map(str::to_owned),
    })
}

impl Target {
    /// The request in RBAC's words; the user is not known here.
    pub(super) fn attributes(&self, method: &Method, uri: &Uri) -> Attributes {
        let path = uri.path().to_owned();
        let Self::Objects(object) = self else {
            return Attributes { verb: method.as_str().to_lowercase(), path, ..Attributes::default() };
        };
        let named = object.name.is_some();
        let verb = match *method {
            Method::GET if named => "get",
            Method::GET if Parameters::of(uri).flag("watch") => "watch",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ => method.as_str(),
        };
        Attributes {
            user: String::new(),
            verb: verb.to_owned(),
            group: object.resource.group.to_string(),
            resource: object.resource.resource.to_string(),
            subresource: object.subresource.clone().unwrap_or_default(),
            namespace: object.namespace.clone().unwrap_or_default(),
            name: object.name.clone().unwrap_or_default(),
            path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &Method, uri: &'static str, expect: [&str; 6]) {
        let uri = Uri::from_static(uri);
        let it = target(&uri).attributes(method, &uri);
        let seen = [it.verb, it.group, it.resource, it.subresource, it.namespace, it.name];
        assert_eq!(seen.each_ref().map(String::as_str), expect, "{uri}");
    }

    #[test]
    fn a_request_is_named_as_rbac_names_it() {
        check(&Method::GET, "/api/v1/pods?watch=0", ["list", "", "pods", "", "", ""]);
        check(&Method::GET, "/api/v1/pods?watch=1", ["watch", "", "pods", "", "", ""]);
        check(&Method::GET, "/api/v1/namespaces", ["list", "", "namespaces", "", "", ""]);
        check(&Method::GET, "/api/v1/namespaces/n", ["get", "", "namespaces", "", "", "n"]);
        check(&Method::PUT, "/api/v1/namespaces/n/status", ["update", "", "namespaces", "status", "", "n"]);
        check(&Method::POST, "/api/v1/namespaces/n/pods", ["create", "", "pods", "", "n", ""]);
        let binding = ["create", "", "pods", "binding", "n", "p"];
        check(&Method::POST, "/api/v1/namespaces/n/pods/p/binding", binding);
        let status = ["patch", "stowage.dev", "gpunodes", "status", "", "g"];
        check(&Method::PATCH, "/apis/stowage.dev/v1alpha1/gpunodes/g/status", status);
        check(&Method::DELETE, "/api/v1/nodes/a%3Ab", ["delete", "", "nodes", "", "", "a:b"]);
        check(&Method::DELETE, "/api/v1/nodes", ["deletecollection", "", "nodes", "", "", ""]);
        check(&Method::GET, "/readyz", ["get", "", "", "", "", ""]);
        check(&Method::GET, "/api/v1/a/b/c/d/e", ["get", "", "", "", "", ""]);
    }
}

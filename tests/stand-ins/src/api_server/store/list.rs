//! Lists: of now, of an exact version, and in pages that all show one version.

use std::ops::Bound;
use std::sync::Arc;

use super::super::error::{ApiError, FieldError};
use super::super::object::Object;
use super::super::resources::Gvr;
use super::super::selector::Selector;
use super::collection::{Collection, Key};
use super::{State, Store};

/// What `resourceVersion` means to a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VersionMatch {
    /// As old as that or newer; this server always shows the newest.
    #[default]
    NotOlderThan,
    /// That version and no other.
    Exact,
}

/// What to list. The default is everything there is now.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// A label selector, such as `app=web,tier in (a,b)`.
    pub labels: String,
    /// A field selector, such as `spec.nodeName=n1`.
    pub fields: String,
    /// At most so many; 0 for all.
    pub limit: usize,
    /// The token of the page before.
    pub continue_token: String,
    /// A version; empty or `0` for the newest.
    pub resource_version: String,
    /// What the version means; as the API has it, a value needs a version.
    pub version_match: Option<VersionMatch>,
}

/// A list, or a page of one.
#[derive(Clone, Debug)]
pub struct List {
    /// The objects, by namespace and name.
    pub items: Vec<Arc<Object>>,
    /// The version they were seen at: where a watch goes on.
    pub version: u64,
    /// What asks for the next page; `None` on the last.
    pub continue_token: Option<String>,
    /// How many are still to come, where the server can tell (not under a selector).
    pub remaining: Option<usize>,
}

impl Store {
    /// Lists a resource.
    ///
    /// # Errors
    /// 404 for an unknown resource, 400 for a bad selector, version or token, 410 for a version that
    /// is no longer in the history, 504 for one that has not happened yet.
    pub fn list(&self, resource: &Gvr, options: &ListOptions) -> Result<List, ApiError> {
        self.with(|state| list(state, resource, options))
    }
}

fn list(state: &State, resource: &Gvr, options: &ListOptions) -> Result<List, ApiError> {
    let collection = state.collection(resource)?;
    let selector = Selector::parse(&collection.kind, &options.labels, &options.fields)?;
    let (version, after) = start(state, collection, options)?;
    let objects = collection
        .objects_at(version)
        .ok_or_else(|| ApiError::expired("The resourceVersion for the provided list is too old."))?;
    let in_namespace = |key: &Key| options.namespace.as_ref().is_none_or(|wanted| *wanted == key.namespace);
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut found = objects
        .range((from, Bound::Unbounded))
        .filter(|(key, object)| in_namespace(key) && selector.matches(object));

    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let page: Vec<_> = found.by_ref().take(limit).collect();
    // Counted only where it is told: under a selector, each page would look at every object that is left.
    let (more, remaining) = if selector.is_everything() {
        let rest = found.count();
        (rest > 0, Some(rest).filter(|&rest| rest > 0))
    } else {
        (found.next().is_some(), None)
    };
    let last = page.last().filter(|_| more);
    Ok(List {
        continue_token: last.map(|(key, _)| Token { version, after: (*key).clone() }.to_string()),
        remaining,
        items: page.into_iter().map(|(_, object)| object.clone()).collect(),
        version,
    })
}

/// The version to show and the key after which the page begins.
fn start(
    state: &State,
    collection: &Collection,
    options: &ListOptions,
) -> Result<(u64, Option<Key>), ApiError> {
    if !options.continue_token.is_empty() {
        let token = Token::parse(&options.continue_token)?;
        if token.version == 0 {
            return Ok((state.version, Some(token.after)));
        }
        if token.version < collection.floor() {
            let mut refusal = ApiError::expired(EXPIRED_PAGE);
            refusal.continue_token = Some(Token { version: 0, after: token.after }.to_string());
            return Err(refusal);
        }
        return Ok((token.version.min(state.version), Some(token.after)));
    }
    if options.resource_version.is_empty() && options.version_match.is_some() {
        let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        let cause = FieldError::forbidden("resourceVersionMatch", why);
        return Err(ApiError::invalid_options("ListOptions", &cause));
    }
    let wanted = parse_version(&options.resource_version)
        .map_err(|why| ApiError::bad_request(format!("invalid resource version: {why}")))?;
    if wanted > state.version {
        return Err(ApiError::version_too_large(wanted, state.version));
    }
    // A list of many pages with a version and no match means exactly that version; the real server
    // keeps this old meaning only for paged lists.
    let exact = options.version_match == Some(VersionMatch::Exact)
        || (options.version_match.is_none() && options.limit > 0);
    Ok((if exact && wanted > 0 { wanted } else { state.version }, None))
}

const EXPIRED_PAGE: &str = "The provided continue parameter is too old to display a consistent list result. \
    You can start a new list without the continue parameter, or use the continue token in this response to \
    retrieve the remainder of the results. Continuing with the provided token results in an inconsistent \
    list - objects that were created, modified, or deleted between the time the first chunk was returned \
    and now may show up in the list.";

/// A version as text; empty is 0, which stands for whatever is newest.
pub(super) fn parse_version(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        format!(
            "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
        )
    })
}

/// What a continue token says: `version/namespace/name`, opaque to clients. Neither a namespace nor
/// a name can hold a slash.
struct Token {
    /// 0 to go on with whatever is there now.
    version: u64,
    after: Key,
}

impl Token {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [version, namespace, name] => {
                version.parse().ok().map(|version| Self { version, after: Key::new(namespace, name) })
            }
            _ => None,
        }
        .ok_or_else(|| ApiError::bad_request("invalid continue token: continue key is not valid"))
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.version, self.after.namespace, self.after.name)
    }
}

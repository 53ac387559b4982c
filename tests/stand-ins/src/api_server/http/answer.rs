//! From a request to the store's call, and from its result to a response.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::super::audit::Attributes;
use super::super::error::ApiError;
use super::super::fault::Fault;
use super::super::object::{Object, number, text, write_json};
use super::super::patch::Patch;
use super::super::resources::{PODS, ResourceType, Rules};
use super::super::store::{DeleteOptions, Deleted, List, Part};
use super::parameters::Parameters;
use super::route::{ObjectPath, Target};
use super::{Body, Shared, discovery, json_response, read_body, stream, text_response};

/// Carries a request out. `fault` is one that only watches have.
///
/// # Errors
/// What the store refuses, and what is wrong with the request itself.
pub(super) async fn answer(
    shared: &Shared,
    target: &Target,
    attributes: &Attributes,
    request: Request<Incoming>,
    fault: Option<Fault>,
) -> Result<Response<Body>, ApiError> {
    let Target::Objects(path) = target else {
        return if attributes.verb == "get" {
            Ok(discovery::answer(shared, target))
        } else {
            Err(ApiError::method_not_allowed())
        };
    };
    let kind = match shared.store.resource(&path.resource) {
        Ok(kind) if fits_scope(&kind, path) => kind,
        _ => return unknown_resource(shared, path),
    };
    let parameters = Parameters::of(request.uri());
    match (attributes.verb.as_str(), part(&kind, path)?) {
        ("list", _) => {
            let list = shared.store.list(&path.resource, &parameters.list_options(namespace(path))?)?;
            Ok(list_response(&kind, &list))
        }
        ("watch", _) => {
            let watch = shared.store.watch(&path.resource, &parameters.watch_options(namespace(path))?)?;
            Ok(stream::response(watch, shared.watches.subscribe(), fault))
        }
        ("get", Some(_)) => {
            let (namespace, name) = place(path);
            let object = shared.store.get(&path.resource, namespace, name)?;
            Ok(object_response(StatusCode::OK, &object))
        }
        ("deletecollection", _) => delete_all(shared, &kind, path, request).await,
        ("delete", Some(Part::Main)) => delete(shared, &kind, path, request).await,
        ("create", _) if is_binding(path) => bind(shared, path, request).await,
        ("create", _) if is_eviction(path) => evict(shared, path, request).await,
        ("create", Some(Part::Main)) if path.name.is_none() => create(shared, &kind, path, request).await,
        ("update", Some(part)) => update(shared, &kind, path, part, request).await,
        ("patch", Some(part)) => patch(shared, path, part, request).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn create(
    shared: &Shared,
    kind: &ResourceType,
    path: &ObjectPath,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    if kind.namespaced && path.namespace.is_none() {
        return Err(ApiError::method_not_allowed());
    }
    let dry_run = Parameters::of(request.uri()).dry_run("CreateOptions")?;
    let object = read_object(&kind.kind, request).await?;
    let created = shared.store.create_or_try(&path.resource, place(path).0, object, dry_run)?;
    Ok(object_response(StatusCode::CREATED, &created))
}

async fn update(
    shared: &Shared,
    kind: &ResourceType,
    path: &ObjectPath,
    part: Part,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let dry_run = Parameters::of(request.uri()).dry_run("UpdateOptions")?;
    let object = read_object(&kind.kind, request).await?;
    let (namespace, name) = place(path);
    let (object, created) =
        shared.store.update_or_try(&path.resource, namespace, name, part, object, dry_run)?;
    Ok(object_response(created_or_ok(created), &object))
}

async fn patch(
    shared: &Shared,
    path: &ObjectPath,
    part: Part,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let parameters = Parameters::of(request.uri());
    let dry_run = parameters.dry_run("PatchOptions")?;
    let content_type = content_type(&request);
    let body = read_body(request).await?;
    let (manager, force) = (parameters.text("fieldManager"), parameters.flag("force"));
    let patch = Patch::parse(&content_type, &body, manager, force)?;
    let (namespace, name) = place(path);
    let (object, created) =
        shared.store.patch_or_try(&path.resource, namespace, name, part, &patch, dry_run)?;
    Ok(object_response(created_or_ok(created), &object))
}

async fn bind(
    shared: &Shared,
    path: &ObjectPath,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let dry_run = Parameters::of(request.uri()).dry_run("CreateOptions")?;
    let binding = read_object("Binding", request).await?;
    let (namespace, name) = place(path);
    shared.store.bind_or_try(namespace, name, &binding, dry_run)?;
    Ok(success(StatusCode::CREATED, Value::Null))
}

async fn evict(
    shared: &Shared,
    path: &ObjectPath,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let eviction = read_object("Eviction", request).await?;
    let options = delete_options_of(&eviction["deleteOptions"]);
    let (namespace, name) = place(path);
    shared.store.evict(namespace, name, &options)?;
    Ok(success(StatusCode::CREATED, Value::Null))
}

async fn delete(
    shared: &Shared,
    kind: &ResourceType,
    path: &ObjectPath,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let (options, dry_run) = delete_options(request).await?;
    let (namespace, name) = place(path);
    match shared.store.delete_or_try(&path.resource, namespace, name, &options, dry_run)? {
        Deleted::Gone(object) if !kind.returns_deleted => {
            let mut details = json!({ "name": name, "kind": kind.gvr.resource, "uid": object.uid() });
            if !kind.gvr.group.is_empty() {
                details["group"] = kind.gvr.group.as_ref().into();
            }
            Ok(success(StatusCode::OK, details))
        }
        Deleted::Gone(object) | Deleted::Marked(object) => Ok(object_response(StatusCode::OK, &object)),
    }
}

async fn delete_all(
    shared: &Shared,
    kind: &ResourceType,
    path: &ObjectPath,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let which = Parameters::of(request.uri()).list_options(namespace(path))?;
    let (options, dry_run) = delete_options(request).await?;
    let version = shared.store.version();
    let items = if dry_run {
        shared.store.list(&path.resource, &which)?.items
    } else {
        shared.store.delete_all(&path.resource, &which, &options)?
    };
    Ok(list_response(kind, &List { items, version, continue_token: None, remaining: None }))
}

/// How to delete stands in the body, or in the URL where there is no body.
async fn delete_options(request: Request<Incoming>) -> Result<(DeleteOptions, bool), ApiError> {
    let parameters = Parameters::of(request.uri());
    let mut dry_run = parameters.dry_run("DeleteOptions")?;
    let body = read_body(request).await?;
    if body.is_empty() {
        let grace_period_seconds = parameters.number("gracePeriodSeconds")?;
        return Ok((DeleteOptions { grace_period_seconds, ..DeleteOptions::default() }, dry_run));
    }
    let body = parse_object("DeleteOptions", &body)?;
    dry_run |= body["dryRun"].as_array().is_some_and(|stages| !stages.is_empty());
    Ok((delete_options_of(&body), dry_run))
}

fn delete_options_of(body: &Value) -> DeleteOptions {
    let precondition = |key| Some(text(body, &["preconditions", key]).to_owned()).filter(|it| !it.is_empty());
    DeleteOptions {
        grace_period_seconds: number(body, &["gracePeriodSeconds"]),
        uid: precondition("uid"),
        resource_version: precondition("resourceVersion"),
    }
}

async fn read_object(kind: &str, request: Request<Incoming>) -> Result<Value, ApiError> {
    let content_type = content_type(&request);
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if !["", "application/json"].contains(&media) {
        return Err(ApiError::unsupported_media_type("application/json"));
    }
    parse_object(kind, &read_body(request).await?)
}

fn parse_object(kind: &str, body: &Bytes) -> Result<Value, ApiError> {
    let unrecognized = |why: &dyn std::fmt::Display| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse \
             error: {why}"
        ))
    };
    match serde_json::from_slice::<Value>(body) {
        Ok(object) if object.is_object() => Ok(object),
        Ok(_) => Err(unrecognized(&"not an object")),
        Err(why) => Err(unrecognized(&why)),
    }
}

fn content_type(request: &Request<Incoming>) -> String {
    let header = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    header.unwrap_or_default().to_owned()
}

/// The real server says that a resource is missing from a built-in group; of other groups it knows
/// nothing at all, not even of one that holds custom resources.
fn unknown_resource(shared: &Shared, path: &ObjectPath) -> Result<Response<Body>, ApiError> {
    let same_group = |kind: &Arc<ResourceType>| {
        (&kind.gvr.group, &kind.gvr.version) == (&path.resource.group, &path.resource.version)
    };
    if shared.store.resources().iter().any(|kind| same_group(kind) && kind.rules != Rules::Custom) {
        Err(ApiError::no_such_resource())
    } else {
        Ok(text_response(StatusCode::NOT_FOUND, "404 page not found\n"))
    }
}

/// Whether the path has a namespace exactly where the resource wants one.
fn fits_scope(kind: &ResourceType, path: &ObjectPath) -> bool {
    match (&path.namespace, &path.name) {
        (Some(_), _) => kind.namespaced,
        (None, Some(_)) => !kind.namespaced,
        (None, None) => true,
    }
}

/// The half of the object that the path is for; `None` for a sub-resource that is no half.
fn part(kind: &ResourceType, path: &ObjectPath) -> Result<Option<Part>, ApiError> {
    match path.subresource.as_deref() {
        None => Ok(Some(Part::Main)),
        Some("status") if kind.status => Ok(Some(Part::Status)),
        Some(_) if is_binding(path) || is_eviction(path) => Ok(None),
        Some(_) => Err(ApiError::no_such_resource()),
    }
}

fn is_binding(path: &ObjectPath) -> bool {
    path.resource == PODS && path.subresource.as_deref() == Some("binding")
}

fn is_eviction(path: &ObjectPath) -> bool {
    path.resource == PODS && path.subresource.as_deref() == Some("eviction")
}

fn namespace(path: &ObjectPath) -> Option<&str> {
    path.namespace.as_deref()
}

fn place(path: &ObjectPath) -> (&str, &str) {
    (path.namespace.as_deref().unwrap_or_default(), path.name.as_deref().unwrap_or_default())
}

fn created_or_ok(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::OK }
}

fn object_response(status: StatusCode, object: &Object) -> Response<Body> {
    let mut body = Vec::new();
    object.write(&mut body, true);
    json_response(status, body)
}

fn success(status: StatusCode, details: Value) -> Response<Body> {
    let mut answer = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" });
    if status == StatusCode::CREATED {
        answer["code"] = 201.into();
    }
    if !details.is_null() {
        answer["details"] = details;
    }
    let mut body = Vec::new();
    write_json(&mut body, &answer);
    json_response(status, body)
}

/// A list. The items of a built-in type do not repeat what type they are, a custom one's do.
fn list_response(kind: &ResourceType, list: &List) -> Response<Body> {
    let mut metadata = json!({ "resourceVersion": list.version.to_string() });
    if let Some(token) = &list.continue_token {
        metadata["continue"] = token.as_str().into();
    }
    if let Some(remaining) = list.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    let head = json!({ "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": metadata });
    let mut body = Vec::new();
    write_json(&mut body, &head);
    body.pop();
    body.extend_from_slice(b",\"items\":[");
    for (index, item) in list.items.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        item.write(&mut body, kind.rules == Rules::Custom);
    }
    body.extend_from_slice(b"]}");
    json_response(StatusCode::OK, body)
}

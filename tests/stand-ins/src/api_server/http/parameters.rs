//! What stands behind the question mark, checked as the real server checks it.

use std::time::Duration;

use http::Uri;

use super::super::error::{ApiError, FieldError};
use super::super::store::{ListOptions, VersionMatch, WatchOptions};

/// How long a watch lasts that does not say: the real server's `--min-request-timeout`.
const WATCH_TIMEOUT: Duration = Duration::from_secs(1_800);

/// The parameters of one request.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn of(uri: &Uri) -> Self {
        Self(form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The value of a parameter; empty where it is not given.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Whether a parameter says yes.
    pub(super) fn flag(&self, name: &str) -> bool {
        ["true", "1"].contains(&self.text(name))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let value = self.text(name);
        if value.is_empty() {
            return Ok(None);
        }
        let refuse =
            |_| ApiError::bad_request(format!("strconv.ParseInt: parsing \"{value}\": invalid syntax"));
        value.parse().map(Some).map_err(refuse)
    }

    /// Whether the request is only a rehearsal.
    pub(super) fn dry_run(&self, options: &str) -> Result<bool, ApiError> {
        match self.text("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => {
                let why = "supported values: \"All\"";
                let cause = FieldError::invalid("dryRun", &format!("[\"{other}\"]"), why);
                Err(ApiError::invalid_options(options, &cause))
            }
        }
    }

    pub(super) fn list_options(&self, namespace: Option<&str>) -> Result<ListOptions, ApiError> {
        if !self.text("sendInitialEvents").is_empty() {
            return Err(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        let limit = self.number("limit")?.unwrap_or_default();
        Ok(ListOptions {
            namespace: namespace.map(str::to_owned),
            labels: self.text("labelSelector").to_owned(),
            fields: self.text("fieldSelector").to_owned(),
            limit: usize::try_from(limit).unwrap_or_default(),
            continue_token: self.text("continue").to_owned(),
            resource_version: self.text("resourceVersion").to_owned(),
            version_match: self.version_match()?,
        })
    }

    pub(super) fn watch_options(&self, namespace: Option<&str>) -> Result<WatchOptions, ApiError> {
        let send_initial_events = match self.text("sendInitialEvents") {
            "" => None,
            _ => Some(self.flag("sendInitialEvents")),
        };
        let not_older = self.version_match()? == Some(VersionMatch::NotOlderThan);
        if send_initial_events.is_some() && !not_older {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return Err(forbidden("resourceVersionMatch", why));
        }
        if send_initial_events.is_none() && self.version_match()?.is_some() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return Err(forbidden("resourceVersionMatch", why));
        }
        let seconds = self.number("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(WatchOptions {
            namespace: namespace.map(str::to_owned),
            labels: self.text("labelSelector").to_owned(),
            fields: self.text("fieldSelector").to_owned(),
            resource_version: self.text("resourceVersion").to_owned(),
            bookmarks: self.flag("allowWatchBookmarks"),
            send_initial_events,
            timeout: Some(seconds.filter(|it| *it > 0).map_or(WATCH_TIMEOUT, Duration::from_secs)),
        })
    }

    fn version_match(&self) -> Result<Option<VersionMatch>, ApiError> {
        match self.text("resourceVersionMatch") {
            "" => Ok(None),
            "NotOlderThan" => Ok(Some(VersionMatch::NotOlderThan)),
            "Exact" => Ok(Some(VersionMatch::Exact)),
            other => {
                let why = "supported values: \"Exact\", \"NotOlderThan\", \"\"";
                let cause = FieldError::invalid("resourceVersionMatch", &format!("\"{other}\""), why);
                Err(ApiError::invalid_options("ListOptions", &cause))
            }
        }
    }
}

fn forbidden(field: &str, why: &str) -> ApiError {
    ApiError::invalid_options("ListOptions", &FieldError::forbidden(field, why))
}

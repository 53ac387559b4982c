//! The Helm chart in `deploy/helm/stowage`: how its generated files are made, and helm to render it with.
//!
//! Nothing is kept twice. The CRD, the rights, the policies and kube-scheduler's configuration stand in `deploy/`, and
//! become templates ([`templates`]); the schema and the documentation of the values are made from `values.yaml`
//! ([`values`]); the plain manifests are the chart, rendered ([`plain`]).

pub mod files;
pub mod helm;
pub mod plain;
pub mod templates;
pub mod validate;
pub mod values;

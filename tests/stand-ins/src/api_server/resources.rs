//! The table of known resources: what each is called, where it lives and which rules it follows.
//!
//! The store is generic; everything that differs from one resource to another is in this table, so
//! that a caller can add a resource of its own (a CRD) with one [`ResourceType::custom`].

use std::borrow::Cow;

/// Group, version and plural name of a resource: how a URL names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvr {
    /// The API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// The version, such as `v1`.
    pub version: Cow<'static, str>,
    /// The plural name in lower case, such as `pods`.
    pub resource: Cow<'static, str>,
}

impl Gvr {
    /// Names a resource.
    pub const fn new(group: &'static str, version: &'static str, resource: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            resource: Cow::Borrowed(resource),
        }
    }
}

/// core/v1 pods.
pub const PODS: Gvr = Gvr::new("", "v1", "pods");
/// core/v1 nodes.
pub const NODES: Gvr = Gvr::new("", "v1", "nodes");
/// core/v1 namespaces.
pub const NAMESPACES: Gvr = Gvr::new("", "v1", "namespaces");
/// core/v1 events. Kept apart from [`NEW_EVENTS`]; the real server shows each under both names.
pub const EVENTS: Gvr = Gvr::new("", "v1", "events");
/// core/v1 configmaps.
pub const CONFIG_MAPS: Gvr = Gvr::new("", "v1", "configmaps");
/// core/v1 serviceaccounts.
pub const SERVICE_ACCOUNTS: Gvr = Gvr::new("", "v1", "serviceaccounts");
/// coordination.k8s.io/v1 leases.
pub const LEASES: Gvr = Gvr::new("coordination.k8s.io", "v1", "leases");
/// policy/v1 poddisruptionbudgets.
pub const BUDGETS: Gvr = Gvr::new("policy", "v1", "poddisruptionbudgets");
/// events.k8s.io/v1 events.
pub const NEW_EVENTS: Gvr = Gvr::new("events.k8s.io", "v1", "events");
/// stowage.dev/v1alpha1 gpunodes.
pub const GPU_NODES: Gvr = Gvr::new("stowage.dev", "v1alpha1", "gpunodes");

/// Rules that only some resources have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// Bindings, graceful deletion, defaults, a spec that hardly changes.
    Pod,
    /// `status.phase`, and deletion of all that is inside.
    Namespace,
    /// A type compiled into the real server: strategic merge patches work.
    BuiltIn,
    /// A CRD's: no strategic merge, generation counts changes.
    Custom,
}

/// One resource: its names and its rules.
#[derive(Clone, Debug)]
pub struct ResourceType {
    pub(super) gvr: Gvr,
    pub(super) kind: String,
    pub(super) singular: String,
    pub(super) namespaced: bool,
    /// Has a `status` sub-resource, so that the two halves are written apart.
    pub(super) status: bool,
    pub(super) rules: Rules,
    /// A PUT of an object that is not there creates it.
    pub(super) create_on_update: bool,
    /// A PUT without `resourceVersion` overwrites.
    pub(super) unconditional_update: bool,
    /// DELETE answers with the object instead of a `Status`.
    pub(super) returns_deleted: bool,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`.
    pub(super) fields: &'static [&'static str],
}

impl ResourceType {
    /// A custom resource, cluster-scoped and without a `status` sub-resource unless told otherwise.
    ///
    /// There is no schema: nothing is defaulted, validated or pruned.
    pub fn custom(
        group: impl Into<Cow<'static, str>>,
        version: impl Into<Cow<'static, str>>,
        plural: impl Into<Cow<'static, str>>,
        kind: impl Into<String>,
    ) -> Self {
        let gvr = Gvr { group: group.into(), version: version.into(), resource: plural.into() };
        let mut resource = Self::built_in(gvr, kind);
        resource.rules = Rules::Custom;
        resource.unconditional_update = false;
        resource
    }

    /// The same resource, inside namespaces.
    #[must_use]
    pub fn namespaced(mut self) -> Self {
        self.namespaced = true;
        self
    }

    /// The same resource with a `status` sub-resource: the main one ignores `status`, and `status`
    /// changes nothing else.
    #[must_use]
    pub fn with_status(mut self) -> Self {
        self.status = true;
        self
    }

    /// How the resource is named in URLs.
    pub fn gvr(&self) -> &Gvr {
        &self.gvr
    }

    fn built_in(gvr: Gvr, kind: impl Into<String>) -> Self {
        let kind = kind.into();
        Self {
            singular: kind.to_lowercase(),
            gvr,
            kind,
            namespaced: false,
            status: false,
            rules: Rules::BuiltIn,
            create_on_update: false,
            unconditional_update: true,
            returns_deleted: false,
            fields: &[],
        }
    }

    /// `apiVersion` of its objects.
    pub(super) fn api_version(&self) -> String {
        if self.gvr.group.is_empty() {
            self.gvr.version.to_string()
        } else {
            format!("{}/{}", self.gvr.group, self.gvr.version)
        }
    }

    /// `pods`, or `gpunodes.stowage.dev`: how messages name the resource.
    pub(super) fn qualified(&self) -> String {
        with_group(&self.gvr.resource, &self.gvr.group)
    }

    /// `Pod`, or `GpuNode.stowage.dev`.
    pub(super) fn qualified_kind(&self) -> String {
        with_group(&self.kind, &self.gvr.group)
    }
}

fn with_group(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// The resources that every server knows unless its options say otherwise.
///
/// The flags are those of the real strategies (`pkg/registry/*/*/strategy.go`, 1.36.1).
pub fn known() -> Vec<ResourceType> {
    let mut pods = ResourceType::built_in(PODS, "Pod").namespaced().with_status();
    pods.rules = Rules::Pod;
    pods.returns_deleted = true;
    pods.fields = &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ];
    let mut nodes = ResourceType::built_in(NODES, "Node").with_status();
    nodes.fields = &["spec.unschedulable"];
    let mut namespaces = ResourceType::built_in(NAMESPACES, "Namespace").with_status();
    namespaces.rules = Rules::Namespace;
    namespaces.returns_deleted = true;
    namespaces.fields = &["status.phase"];
    let mut service_accounts = ResourceType::built_in(SERVICE_ACCOUNTS, "ServiceAccount").namespaced();
    service_accounts.returns_deleted = true;
    let mut events = ResourceType::built_in(EVENTS, "Event").namespaced();
    events.create_on_update = true;
    events.fields = &[
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.uid",
        "reason",
        "type",
    ];
    let mut new_events = ResourceType::built_in(NEW_EVENTS, "Event").namespaced();
    new_events.create_on_update = true;
    new_events.fields = &["reason", "type"];
    let mut leases = ResourceType::built_in(LEASES, "Lease").namespaced();
    leases.create_on_update = true;
    leases.unconditional_update = false;
    let gpu_nodes = ResourceType::custom(
        GPU_NODES.group.clone(),
        GPU_NODES.version.clone(),
        GPU_NODES.resource.clone(),
        "GpuNode",
    )
    .with_status();
    vec![
        pods,
        nodes,
        namespaces,
        events,
        ResourceType::built_in(CONFIG_MAPS, "ConfigMap").namespaced(),
        service_accounts,
        leases,
        new_events,
        ResourceType::built_in(BUDGETS, "PodDisruptionBudget").namespaced().with_status(),
        gpu_nodes,
    ]
}

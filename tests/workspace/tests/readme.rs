//! The README's table of names, ports and bounds says what the code says.

use stowage_shared::contract::*;

#[test]
fn the_readme_lists_the_values_of_the_code() {
    let readme = include_str!("../../../README.md");
    let rows = [
        ("plan annotation", format!("`{PLAN_ANNOTATION}`")),
        (
            "policy annotations",
            format!(
                "`{PLACEMENT_ANNOTATION}` `{GPU_MODEL_ANNOTATION}` `{GPU_MEMORY_MIN_ANNOTATION}` \
                 `{DISTINCT_GPUS_ANNOTATION}` `{SHARE_WITH_ANNOTATION}`"
            ),
        ),
        ("node label for whole GPUs that are kept", format!("`{RESERVE_LABEL}`")),
        ("may a pod be moved for others", format!("`{DISRUPTABLE_ANNOTATION}`")),
        ("API group and version", format!("`{API_GROUP}` `{API_VERSION}`")),
        ("scheduler name", format!("`{SCHEDULER_NAME}`")),
        ("device plugin: `/livez` `/readyz` `/metrics`", format!("port {PLUGIN_HTTP_PORT}")),
        ("scheduler extender: `/livez` `/readyz` `/metrics`", format!("port {EXTENDER_HTTP_PORT}")),
        (
            "scheduler extender: `/filter` `/prioritize` `/preempt` `/bind`",
            format!("port {EXTENDER_VERB_PORT}, on 127.0.0.1; behind a Service over TLS"),
        ),
        (
            "scheduler extender: the map",
            format!("port {EXTENDER_MAP_PORT}, on 127.0.0.1 with the chart; without it off"),
        ),
        ("largest manifest to try on the map", format!("{MAP_BODY_MAX_BYTES} bytes")),
        ("readers of the map, at most", format!("{MAP_READERS_MAX}")),
        ("waiting pods that the map lists, at most", format!("{MAP_WAITING_MAX}")),
        ("the map remembers what a token may see for", format!("{} s", MAP_ACCESS_TTL.as_secs())),
        ("longest plan", format!("{PLAN_MAX_BYTES} bytes")),
        ("longest policy annotation", format!("{POLICY_MAX_BYTES} bytes")),
        ("patterns of GPU models, at most", format!("{GPU_MODEL_PATTERNS_MAX}")),
        ("longest device id", format!("{DEVICE_ID_MAX_BYTES} bytes")),
        ("largest request to the extender", format!("{EXTENDER_BODY_MAX_BYTES} bytes")),
        ("GPUs of a node, at most", format!("{GPUS_PER_NODE_MAX}")),
        ("offers of a GPU, at most", format!("{OFFERS_PER_GPU_MAX}")),
        ("replicas of a shared part, at most", format!("{REPLICAS_MAX}")),
        ("devices of a pod, at most", format!("{DEVICES_PER_POD_MAX}")),
        ("`GetPreferredAllocation` waits for a plan", format!("{} ms", PLAN_WAIT.as_millis())),
        ("and then looks it up for", format!("{} ms", PLAN_LOOKUP.as_millis())),
        ("from SIGTERM to the end", format!("{} s", SHUTDOWN_GRACE.as_secs())),
        ("a GpuNode is written at least every", format!("{} s", GPU_NODE_HEARTBEAT.as_secs())),
        ("a GpuNode is stale after", format!("{} s", GPU_NODE_STALE.as_secs())),
        ("an unconfirmed assumption lives", format!("{} s", ASSUMPTION_TTL.as_secs())),
        ("a Binding may take", format!("{} s", BIND_TIMEOUT.as_secs())),
    ];
    for (what, value) in rows {
        let row = format!("| {what} | {value} |");
        assert!(readme.lines().any(|line| line == row), "the README lacks the row {row}");
    }
}

#[test]
fn the_readme_lists_the_exit_codes_of_the_code() {
    let readme = include_str!("../../../README.md");
    for code in [
        ExitCode::Success,
        ExitCode::Usage,
        ExitCode::Unavailable,
        ExitCode::Software,
        ExitCode::NoPermission,
        ExitCode::Config,
    ] {
        let start = format!("| {} |", code as u8);
        assert!(readme.lines().any(|line| line.starts_with(&start)), "the README lacks exit code {code:?}");
    }
}

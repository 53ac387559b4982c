use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Written by kube-scheduler's own Go types (k8s.io/kube-scheduler 0.36.1, `json.Marshal`).
const FILTER: &[u8] = include_bytes!("../../tests/golden/filter-request.json");
const FULL_NODES: &[u8] = include_bytes!("../../tests/golden/filter-request-full-nodes.json");
const BIND: &[u8] = include_bytes!("../../tests/golden/bind-request.json");

#[test]
fn kube_schedulers_requests_are_read() {
    let asked = read_args(FILTER).unwrap();
    let names: Vec<_> = asked.names().iter().map(|name| name.text()).collect();
    assert_eq!(names, ["gpu-node-2", "gpu-node-1", "cpu-node-1", "gpu-node-3", "gone-node"]);
    assert_eq!(asked.pod.metadata.uid, "6a1f0f9e-2f7b-4c0d-9a57-0c7f3f2f9a11");
    assert_eq!(asked.pod.spec.init_containers[1].restart_policy, "Always");
    assert!(asked.pod.spec.containers[0].resources.limits.contains_key("nvidia.com/mig-1g.5gb"));
    let bind = read_binding_args(BIND).unwrap();
    assert_eq!(
        (&*bind.pod_namespace, &*bind.pod_name, &*bind.node),
        ("models", "llama-7f9c-x2x4z", "gpu-node-1")
    );
    assert_eq!(bind.pod_uid, asked.pod.metadata.uid);
}

#[test]
fn whole_nodes_are_read_with_their_names() {
    let asked = read_args(FULL_NODES).unwrap();
    assert_eq!(asked.names()[0].text(), "gpu-node-1");
    assert_eq!(asked.nodes()[0]["metadata"]["name"], "gpu-node-1");
    let names = read_args(FILTER).unwrap();
    assert!(names.nodes().is_empty());
}

#[test]
fn answers_are_kube_schedulers_json() {
    let asked = read_args(br#"{"Pod":{},"NodeNames":["n1","n2","n\"3","n4"]}"#).unwrap();
    let names = asked.names();
    let outcomes = [
        Outcome::Unresolvable("no \"GPUs\""),
        Outcome::Fits,
        Outcome::Failed("no free placement for nvidia.com/gpu"),
    ];
    let text = String::from_utf8(filter_result(&asked, &outcomes, &[1, 2, 0, 0])).unwrap();
    let want = r#"{"Nodes":null,"NodeNames":["n1"],"FailedNodes":{"n2":"no free placement for nvidia.com/gpu"},"FailedAndUnresolvableNodes":{"n\"3":"no \"GPUs\"","n4":"no \"GPUs\""},"Error":""}"#;
    assert_eq!(text, want);
    assert_eq!(
        host_priorities(&names[..2], &[7, 10]),
        br#"[{"Host":"n1","Score":7},{"Host":"n2","Score":10}]"#
    );
    assert_eq!(host_priorities(&[], &[]), b"[]");
    assert_eq!(binding_result(""), br#"{"Error":""}"#);
    let error: Value = serde_json::from_slice(&filter_error("a \"b\"\n")).unwrap();
    assert_eq!(error["Error"], "a \"b\"\n");
    assert_eq!(error["NodeNames"], Value::Null);
}

#[derive(Debug, PartialEq)]
enum Want {
    /// So many names.
    Names(usize),
    NotJson,
    NotArgs,
    NoPod,
}

#[track_caller]
fn check(body: impl AsRef<[u8]>, want: Want) {
    let got = match read_args(body.as_ref()) {
        Ok(asked) => Want::Names(asked.names().len()),
        Err(WireError::NotJson(_)) => Want::NotJson,
        Err(WireError::NotArgs(_)) => Want::NotArgs,
        Err(WireError::NoPod) => Want::NoPod,
    };
    assert_eq!(got, want, "{}", String::from_utf8_lossy(&body.as_ref()[..body.as_ref().len().min(200)]));
}

#[test]
fn every_bad_body_has_its_own_answer() {
    check("", Want::NotJson);
    check("{", Want::NotJson);
    check("nonsense", Want::NotJson);
    check(&FILTER[..FILTER.len() - 1], Want::NotJson);
    check([FILTER, b"x"].concat(), Want::NotJson);
    check(b"{\"Pod\":{\"metadata\":{\"name\":\"\xff\"}}}", Want::NotJson);
    check(format!("{{\"Pod\":{}", "[".repeat(100_000)), Want::NotArgs);
    check(format!("{{\"Other\":{}", "[".repeat(100_000)), Want::NotJson);
    check("null", Want::NotArgs);
    check("[1,2]", Want::NotArgs);
    check("\"text\"", Want::NotArgs);
    check(r#"{"Pod":{},"Pod":{}}"#, Want::NotArgs);
    check(r#"{"Pod":{},"pod":{}}"#, Want::NotArgs);
    check(r#"{"Pod":5,"NodeNames":[]}"#, Want::NotArgs);
    check(r#"{"Pod":{},"NodeNames":{}}"#, Want::NotArgs);
    check(r#"{"Pod":{},"NodeNames":[null]}"#, Want::NotArgs);
    check(
        r#"{"Pod":{"spec":{"containers":[{"resources":{"limits":{"nvidia.com/gpu":-1}}}]}}}"#,
        Want::NotArgs,
    );
    check("{}", Want::NoPod);
    check(r#"{"Pod":null,"Nodes":null,"NodeNames":["a"]}"#, Want::NoPod);
    check(r#"{"Pod":{},"Nodes":{"items":7},"NodeNames":null}"#, Want::NotArgs);
}

#[test]
fn nulls_gaps_and_old_spellings_are_read() {
    check(r#"{"Pod":{},"Nodes":null,"NodeNames":null}"#, Want::Names(0));
    check(r#"{"Pod":{},"Nodes":{},"NodeNames":null}"#, Want::Names(0));
    check(r#"{"Pod":{},"Nodes":{"metadata":{},"items":[{},7,null]}}"#, Want::Names(3));
    check(r#"{"Pod":{},"Nodes":{"items":[{}]},"NodeNames":["a","b"]}"#, Want::Names(2));
    check(r#"{"Pod":{"metadata":null,"spec":null,"status":null},"NodeNames":["a"]}"#, Want::Names(1));
    check(r#"{"pod":{"spec":{"containers":null}},"nodes":null,"nodenames":["a","b"]}"#, Want::Names(2));
    check(r#"{"Pod":{"unknown":[[[]]]},"NodeNames":["\u0061","😀"],"New":1}"#, Want::Names(2));
    assert_eq!(read_binding_args(br#"{"PodName":null}"#).unwrap(), ExtenderBindingArgs::default());
    assert!(matches!(read_binding_args(b"[]x"), Err(WireError::NotArgs(_) | WireError::NotJson(_))));
    assert!(matches!(read_binding_args(b"{\"PodName\":"), Err(WireError::NotJson(_))));
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(cut in 0..FILTER.len(), junk in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut body = FILTER[..cut].to_vec();
        body.extend(junk);
        let _ = read_args(&body);
        let _ = read_binding_args(&body);
    }

    #[test]
    fn whatever_names_there_are_the_answer_is_json(names in prop::collection::vec(".{0,12}", 0..8), reason in ".{0,20}") {
        let body = json!({ "Pod": {}, "NodeNames": names }).to_string();
        let asked = read_args(body.as_bytes()).unwrap();
        let fits = names.len() / 2;
        let outcomes = [Outcome::Fits, Outcome::Failed(reason.as_str())];
        let outcome_of: Vec<usize> = (0..names.len()).map(|at| usize::from(at >= fits)).collect();
        let read: Value = serde_json::from_slice(&filter_result(&asked, &outcomes, &outcome_of)).unwrap();
        prop_assert_eq!(&read["NodeNames"], &json!(names[..fits]));
        for name in &names[fits..] {
            prop_assert_eq!(read["FailedNodes"][name].as_str(), Some(reason.as_str()));
        }
        let scores: Value = serde_json::from_slice(&host_priorities(asked.names(), &vec![3; names.len()])).unwrap();
        for (at, name) in names.iter().enumerate() {
            prop_assert_eq!(&scores[at], &json!({ "Host": name, "Score": 3 }));
        }
    }
}

#[test]
fn victims_are_read_in_both_forms_and_told_by_uid() {
    // What nodeCacheCapable: true brings.
    let meta = br#"{"Pod":{"metadata":{"uid":"u"},"spec":{"priority":7}},"NodeNameToVictims":null,
        "NodeNameToMetaVictims":{"n1":{"Pods":[{"UID":"a"},{"UID":"b"}],"NumPDBViolations":2},"n2":{"Pods":null,"NumPDBViolations":0}}}"#;
    let (pod, candidates) = read_preemption_args(meta).unwrap();
    assert_eq!((&*pod.metadata.uid, pod.spec.priority), ("u", 7));
    assert_eq!((candidates["n1"].pods.len(), candidates["n2"].pods.len()), (2, 0));
    let told = r#"{"NodeNameToMetaVictims":{"n1":{"Pods":[{"UID":"a"},{"UID":"b"}],"NumPDBViolations":2},"n2":{"Pods":[],"NumPDBViolations":0}}}"#;
    assert_eq!(String::from_utf8(preemption_result(&candidates)).unwrap(), told);
    // And what nodeCacheCapable: false would.
    let whole = br#"{"Pod":{"metadata":{},"spec":{}},"NodeNameToVictims":{"n1":{"Pods":[{"metadata":{"uid":"a","name":"x"},"spec":{}}],
        "NumPDBViolations":0}},"NodeNameToMetaVictims":null}"#;
    let (_, candidates) = read_preemption_args(whole).unwrap();
    assert_eq!(candidates["n1"].pods[0].uid, "a");
    assert!(matches!(read_preemption_args(b"{}"), Err(WireError::NoPod)));
}

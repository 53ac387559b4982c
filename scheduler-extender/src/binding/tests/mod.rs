mod fake_api;

use std::collections::BTreeMap;

use prometheus_client::registry::Registry;
use stowage_shared::audit::{NodeView, PodView, audit};
use stowage_shared::contract::PLAN_ANNOTATION;
use stowage_shared::pod::{PodSpec, PodStatus};

use self::fake_api::{FakeApi, Fault};
use super::*;
use crate::state::State;
use crate::state::event::{Change, Event, Pod};
use crate::synthetic;

const NODE: &str = "gpu-node-0";

struct Setup {
    api: FakeApi,
    binder: Binder,
    now: Now,
}

/// A cluster of synthetic nodes in which these pods wait.
fn setup(nodes: usize, pods: &[Pod]) -> Setup {
    let now = Now::read();
    let mut state: State = synthetic::state(nodes, 0, now);
    for pod in pods {
        state.apply(Event::Pod(Change::Applied(pod.clone())), now);
    }
    let api = FakeApi::new(pods.iter().cloned());
    let metrics = Arc::new(Metrics::new(&mut Registry::default()));
    let binder = Binder::new(api.client(), Arc::new(Store::new(state)), metrics);
    Setup { api, binder, now }
}

impl Setup {
    fn held(&self) -> (usize, usize) {
        self.binder.store.change(|state| state.assumptions()).unwrap()
    }

    /// The watch tells what the API server has.
    fn watch(&self) {
        let pods = self.api.pods();
        let tell = |state: &mut State| {
            pods.into_iter().for_each(|pod| state.apply(Event::Pod(Change::Applied(pod)), self.now));
        };
        self.binder.store.change(tell).unwrap();
    }

    /// The audit of what the API server has.
    fn findings(&self, nodes: usize) -> Vec<String> {
        let findings = (0..nodes).map(synthetic::gpu_node_name).flat_map(|node| {
            let gpus = synthetic::status(&node, Vec::new(), self.now).inventory().unwrap();
            let pods = self.api.pods().into_iter().filter_map(|pod| {
                let spec = PodSpec { node_name: pod.node.clone(), ..pod.spec };
                let id = (pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str());
                PodView::of(
                    id,
                    |key| pod.plan.as_deref().filter(|_| key == PLAN_ANNOTATION),
                    &spec,
                    &PodStatus::default(),
                    &node,
                )
            });
            let pods: Vec<PodView> = pods.collect();
            assert!(pods.iter().all(|pod| pod.plan.is_some()), "every bound pod has a valid plan");
            audit(&NodeView { node, gpus, allocations: Vec::new(), pods })
        });
        findings.map(|finding| finding.to_string()).collect()
    }
}

fn waiting(n: usize) -> Pod {
    synthetic::pod(&format!("p{n}"), &format!("u{n}"), synthetic::WHOLE, 1)
}

fn args(pod: &Pod, node: &str) -> ExtenderBindingArgs {
    ExtenderBindingArgs {
        pod_name: pod.name.clone(),
        pod_namespace: pod.namespace.clone(),
        pod_uid: pod.uid.clone(),
        node: node.to_owned(),
    }
}

#[tokio::test]
async fn a_pod_is_bound_with_its_plan_in_one_call() {
    let setup = setup(1, &[waiting(0)]);
    setup.binder.bind(&args(&waiting(0), NODE)).await.unwrap();
    assert_eq!(setup.api.calls(), (1, 0));
    assert_eq!(setup.held(), (0, 1), "held until the watch shows it");
    let pod = &setup.api.pods()[0];
    assert_eq!(pod.node, NODE);
    assert!(pod.plan.as_deref().unwrap().starts_with(r#"{"v":1,"uid":"u0","node":"gpu-node-0","c":"#));
    setup.watch();
    assert_eq!(setup.held(), (0, 0));
    assert_eq!(setup.findings(1), Vec::<String>::new());
}

#[tokio::test]
async fn a_pod_without_gpus_is_bound_without_a_plan() {
    let cpu = Pod { spec: PodSpec::default(), ..waiting(0) };
    let setup = setup(1, std::slice::from_ref(&cpu));
    setup.binder.bind(&args(&cpu, "some-other-node")).await.unwrap();
    let pod = &setup.api.pods()[0];
    assert_eq!((&*pod.node, &pod.plan), ("some-other-node", &None));
    assert_eq!(setup.held(), (0, 0));
}

#[tokio::test]
async fn a_pod_that_the_watch_has_not_shown_yet_is_read() {
    let setup = setup(1, &[]);
    let api = FakeApi::new([waiting(0)]);
    let binder = Binder { client: api.client(), ..setup.binder };
    binder.bind(&args(&waiting(0), NODE)).await.unwrap();
    assert_eq!(api.calls(), (1, 1));
    let other = ExtenderBindingArgs { pod_uid: "another".into(), ..args(&waiting(0), NODE) };
    assert!(matches!(binder.bind(&other).await, Err(BindError::Gone)));
}

/// Asks for a binding under a fault; what is said and how many pods hold devices afterwards.
async fn with_fault(fault: Fault, readable: bool) -> (Result<(), String>, (usize, usize)) {
    let setup = setup(1, &[waiting(0)]);
    setup.api.set(fault, readable);
    let result = setup.binder.bind(&args(&waiting(0), NODE)).await;
    (result.map_err(|error| error.to_string()), setup.held())
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_answer_was_lost_is_found_bound() {
    for fault in [Fault::AnswerCut, Fault::StatusAfter(500), Fault::StatusAfter(504)] {
        assert_eq!(with_fault(fault, true).await, (Ok(()), (0, 1)), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_passed_on_and_frees_the_devices() {
    for code in [400, 403, 404, 409, 422] {
        let (result, held) = with_fault(Fault::Status(code), true).await;
        let error = result.unwrap_err();
        assert!(error.contains(&code.to_string()) && error.contains("as asked"), "{error}");
        assert_eq!(held, (0, 0), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_nobody_knows_the_devices_stay_held() {
    for (fault, readable) in [
        (Fault::RequestCut, true),
        (Fault::AnswerCut, false),
        (Fault::Status(500), true),
        (Fault::Status(409), false),
        (Fault::Hangs, true),
    ] {
        let (result, held) = with_fault(fault, readable).await;
        assert!(result.unwrap_err().contains("not known whether"), "{fault:?}");
        assert_eq!(held, (1, 0), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_binding_in_doubt_is_tried_again_with_the_same_plan() {
    let setup = setup(1, &[waiting(0)]);
    setup.api.set(Fault::AnswerCut, false);
    setup.binder.bind(&args(&waiting(0), NODE)).await.unwrap_err();
    setup.api.set(Fault::None, true);
    setup.binder.bind(&args(&waiting(0), NODE)).await.unwrap();
    assert_eq!(setup.held(), (0, 1), "409, read, and found bound as planned");
    assert_eq!(setup.findings(1), Vec::<String>::new());
}

#[tokio::test]
async fn a_pod_bound_elsewhere_or_gone_frees_the_devices() {
    let bound = setup(1, &[waiting(0)]);
    bound.api.change("p0", |pod| pod.node = "elsewhere".into());
    let error = bound.binder.bind(&args(&waiting(0), NODE)).await.unwrap_err().to_string();
    assert_eq!(
        (error.as_str(), bound.held()),
        ("the pod is bound to node elsewhere by somebody else", (0, 0))
    );

    let gone = setup(1, &[waiting(0)]);
    gone.api.remove("p0");
    let error = gone.binder.bind(&args(&waiting(0), NODE)).await.unwrap_err().to_string();
    assert!(error.contains("404 NotFound: no such pod"), "{error}");
    assert_eq!(gone.held(), (0, 0));

    let made_again = setup(1, &[waiting(0)]);
    made_again.api.change("p0", |pod| pod.uid = "another".into());
    assert!(matches!(made_again.binder.bind(&args(&waiting(0), NODE)).await, Err(BindError::Gone)));
    assert_eq!(made_again.held(), (0, 0));
}

#[tokio::test]
async fn asking_again_for_what_is_done_succeeds() {
    let setup = setup(1, &[waiting(0)]);
    setup.binder.bind(&args(&waiting(0), NODE)).await.unwrap();
    setup.watch();
    setup.binder.bind(&args(&waiting(0), NODE)).await.unwrap();
    assert_eq!(setup.api.calls(), (1, 0));
}

#[tokio::test]
async fn what_a_stranger_asks_for_is_refused() {
    let theirs = Pod { ours: false, ..waiting(1) };
    let setup = setup(1, &[waiting(0), theirs.clone()]);
    let good = args(&waiting(0), NODE);
    for (args, want) in [
        (args(&theirs, NODE), "does not ask for one of the schedulers"),
        (ExtenderBindingArgs { pod_namespace: "kube-system".into(), ..good.clone() }, "has another name"),
        (ExtenderBindingArgs { pod_name: "../../secrets/x".into(), ..good.clone() }, "PodName is not a name"),
        (ExtenderBindingArgs { pod_namespace: "..".into(), ..good.clone() }, "PodNamespace is not a name"),
        (ExtenderBindingArgs { node: "a/b".into(), ..good.clone() }, "Node is not a name"),
        (ExtenderBindingArgs { pod_uid: "x".repeat(1000), ..good.clone() }, "PodUID is not a name"),
        (ExtenderBindingArgs::default(), "PodNamespace is not a name"),
    ] {
        let error = setup.binder.bind(&args).await.unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    assert_eq!(setup.api.calls().0, 0);
}

#[tokio::test]
async fn nothing_is_bound_before_everything_was_listed() {
    let api = FakeApi::new([waiting(0)]);
    let metrics = Arc::new(Metrics::new(&mut Registry::default()));
    let binder = Binder::new(api.client(), Arc::new(Store::default()), metrics);
    let error = binder.bind(&args(&waiting(0), NODE)).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), api.calls()), (NOT_SYNCED, (0, 0)));
}

/// kube-scheduler binds many pods at once, each chosen before the others were seen bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_binds_at_once_promise_no_device_twice() {
    const NODES: usize = 2;
    for round in 0..10 {
        let kinds =
            [(synthetic::WHOLE, 1), (synthetic::SLICE, 2), (synthetic::SHARE, 1), (synthetic::WHOLE, 2)];
        let pods: Vec<Pod> = (0..60)
            .map(|n| {
                let (resource, count) = kinds[(n + round) % kinds.len()];
                synthetic::pod(&format!("p{n}"), &format!("u{n}"), resource, count)
            })
            .collect();
        let setup = setup(NODES, &pods);
        let binds = pods.iter().enumerate().map(|(n, pod)| {
            let (binder, args) =
                (setup.binder.clone(), args(pod, &synthetic::gpu_node_name(n / kinds.len() % NODES)));
            tokio::spawn(async move { binder.bind(&args).await })
        });
        let mut refused = 0;
        for bind in futures::future::join_all(binds).await {
            match bind.unwrap() {
                Ok(()) => {}
                Err(BindError::Refused(Refusal::NoFit(_))) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        let bound = setup.api.pods().iter().filter(|pod| !pod.node.is_empty()).count();
        assert_eq!((bound + refused, setup.held()), (pods.len(), (0, bound)));
        assert_eq!(setup.findings(NODES), Vec::<String>::new());
        // Every whole GPU, slice and share that pods asked for and that was there was used.
        let mut devices: BTreeMap<String, u32> = BTreeMap::new();
        for pod in setup.api.pods().iter().filter(|pod| !pod.node.is_empty()) {
            let request = stowage_shared::request::Request::of_standard(&pod.spec).unwrap();
            request
                .total()
                .into_iter()
                .for_each(|(name, n)| *devices.entry(name.to_string()).or_default() += n);
        }
        assert!(devices[synthetic::WHOLE] >= 7 && devices[synthetic::SLICE] == 28, "{devices:?}");
        assert_eq!(devices[synthetic::SHARE], 15);
    }
}

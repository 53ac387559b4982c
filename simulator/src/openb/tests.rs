//! A small cut of a cluster, and everything that is done with it.
#![allow(clippy::unwrap_used)]

use super::*;

const NODES: &str = "\
sn,cpu_milli,memory_mib,gpu,model
b,16000,65536,2,T4
a,32000,131072,4,V100
";

const PODS: &str = "\
name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos
p0,4000,8192,1,1000,,LS
p1,2000,4096,1,500,T4|P100,LS
p2,8000,16384,2,1000,V100,BE
p3,4000,8192,0,0,,BE
p4,2000,4096,1,250,,LS
";

fn trace() -> Trace {
    Trace::read(Source { file: "nodes.csv", text: NODES }, Source { file: "pods.csv", text: PODS }).unwrap()
}

#[track_caller]
fn refuses(nodes: &str, pods: &str, expect: &str) {
    let read =
        Trace::read(Source { file: "nodes.csv", text: nodes }, Source { file: "pods.csv", text: pods });
    assert_eq!(read.unwrap_err().to_string(), expect);
}

#[test]
fn what_is_wrong_in_a_table_is_told_with_its_place() {
    let head = "sn,cpu_milli,memory_mib,gpu,model\n";
    refuses("sn,cpu_milli\n", PODS, "nodes.csv: no column memory_mib in the first line; it has sn,cpu_milli");
    refuses("", PODS, "nodes.csv: no column sn in the first line; it has ");
    refuses(head, PODS, "nodes.csv: no GPUs");
    refuses(
        &format!("{head}a,1,1,1,M\n\nb,many,1,1,M\n"),
        PODS,
        "nodes.csv, line 4, column cpu_milli: \"many\" is not a whole number of at most 1000000000",
    );
    refuses(
        &format!("{head}a,1,1,65,M\n"),
        PODS,
        "nodes.csv, line 2, column gpu: \"65\" is not a whole number of at most 64",
    );
    refuses(&format!("{head}a,1,1\n"), PODS, "nodes.csv, line 2: ends before column model");
    refuses(NODES, "cpu_milli,memory_mib,num_gpu,gpu_milli\n", "pods.csv: no pods");
    let many: String = (0..65).map(|model| format!("n{model},1,1,1,M{model}\n")).collect();
    refuses(
        &format!("{head}{many}"),
        PODS,
        "nodes.csv, line 66, column model: \"M64\" is not one of the first 64 models",
    );
}

#[test]
fn what_is_wrong_in_an_order_or_in_ranks_is_told_with_its_place() {
    let trace = trace();
    let order = |text| trace.read_order(Source { file: "order.txt", text });
    assert_eq!(order("4\n0\n\n").unwrap(), [4, 0]);
    assert_eq!(
        order("0\n5\n").unwrap_err().to_string(),
        "order.txt, line 2, column row: \"5\" is not a whole number below 5"
    );
    let ranks = |text| trace.read_ranks(Source { file: "ranks.txt", text });
    assert_eq!(ranks("7\n3\n").unwrap(), [3, 7], "the ranks go to the nodes sorted by name");
    assert_eq!(ranks("7\n").unwrap_err().to_string(), "ranks.txt: 1 lines, where 2 nodes want a rank each");
}

#[test]
fn a_trace_without_constraints_needs_no_column_for_them() {
    let pods = "cpu_milli,memory_mib,num_gpu,gpu_milli\n1,1,1,1000\n";
    let nodes = Source { file: "nodes.csv", text: NODES };
    let trace = Trace::read(nodes, Source { file: "pods.csv", text: pods }).unwrap();
    assert_eq!(trace.kinds[0].gpu_spec, "");
}

const POLICIES: [PolicyName; 9] = [
    PolicyName::Stowage,
    PolicyName::Fgd,
    PolicyName::BestFit,
    PolicyName::GpuPacking,
    PolicyName::GpuClustering,
    PolicyName::DotProduct,
    PolicyName::Random,
    PolicyName::LeastAllocated,
    PolicyName::MostAllocated,
];

/// Nodes by name, and GPUs, of each arrival.
fn places(policy: PolicyName, order: &[usize]) -> String {
    let trace = trace();
    let what = Replay { ties: Ties::Name(trace.ranks_by_name()), ..Replay::new(&trace, order, policy) };
    let csv = replay(what, |_| ()).to_csv(&trace);
    let cells = csv.lines().skip(1).map(|line| line.splitn(3, ',').nth(2).unwrap().replace(',', ":"));
    cells.collect::<Vec<_>>().join(" ")
}

#[test]
fn each_policy_places_as_it_says() {
    let order = [0, 1, 2, 3, 4, 4];
    for (policy, expect) in [
        (PolicyName::Stowage, "b:0 b:1 a:0-1 a: b:1 b:1"),
        (PolicyName::Fgd, "a:0 b:0 a:1-2 a: b:0 b:0"),
        (PolicyName::BestFit, "b:0 b:1 a:0-1 b: b:1 b:1"),
        (PolicyName::GpuPacking, "b:0 b:1 a:0-1 a: b:1 b:1"),
        (PolicyName::GpuClustering, "b:0 b:1 a:0-1 a: b:1 b:1"),
        (PolicyName::DotProduct, "b:0 b:1 a:0-1 a: a:2 a:2"),
        (PolicyName::LeastAllocated, "a:0 b:0 a:1-2 b: a:3 a:3"),
        (PolicyName::MostAllocated, "b:0 b:1 a:0-1 b: b:1 b:1"),
    ] {
        assert_eq!(places(policy, &order), expect, "{policy:?}");
    }
}

/// Adds up what each node was given, by itself, and finds more than there is.
#[test]
fn no_policy_gives_what_is_not_there() {
    let trace = trace();
    let order: Vec<usize> = (0..60).map(|arrival| arrival * 7 % 5).collect();
    for policy in POLICIES {
        for mix in [MixKind::Trace, MixKind::Learned] {
            let what = Replay { ties: Ties::random(3), mix, ..Replay::new(&trace, &order, policy) };
            let run = replay(what, |_| ());
            let mut left: Vec<_> = trace.nodes.iter().map(|node| node.empty.clone()).collect();
            for placed in &run.arrivals {
                let Some(place) = placed.node else { continue };
                let shape = trace.kinds[trace.pods[placed.row]].shape;
                let node = &mut left[place];
                assert!(
                    node.cpu_milli >= shape.cpu_milli && node.memory_mib >= shape.memory_mib,
                    "{policy:?}"
                );
                assert!(!shape.wants_gpu() || shape.models.contains(node.model), "{policy:?}");
                assert_eq!(placed.gpus.len(), usize::from(shape.gpus), "{policy:?}");
                let fits = |&gpu: &u16| node.idle[usize::from(gpu)] >= shape.gpu_milli;
                assert!(placed.gpus.iter().all(fits), "{policy:?}");
                node.take(&shape, &placed.gpus);
            }
            assert!(run.refused() > 0 && run.refused() < 60, "{policy:?}");
        }
    }
}

#[test]
fn one_seed_gives_one_result() {
    let trace = trace();
    let order: Vec<usize> = (0..40).map(|arrival| arrival * 3 % 5).collect();
    for policy in POLICIES {
        let run = || {
            let ties = Ties::random(7);
            replay(Replay { ties, seed: 7, ..Replay::new(&trace, &order, policy) }, |_| ())
        };
        assert_eq!(run(), run(), "{policy:?}");
    }
}

/// Two thousand pods, of which a few are there at once: whoever does not give everything back refuses some soon.
#[test]
fn what_a_pod_had_is_free_again_when_it_leaves() {
    let trace = trace();
    let order: Vec<usize> = (0..2_000).map(|arrival| arrival * 7 % 5).collect();
    for policy in POLICIES {
        let run = |departures| {
            let what = Replay { departures, seed: 5, ..Replay::new(&trace, &order, policy) };
            replay(what, |_| ())
        };
        let steady = run(Some(0.3)).steady();
        assert!((25.0..40.0).contains(&steady.asked), "{policy:?}: {steady:?}");
        assert!(steady.refused < 10.0 && steady.allocated > 0.8 * steady.asked, "{policy:?}: {steady:?}");
        assert_eq!(run(Some(0.3)).steady(), steady, "{policy:?}");
        assert!(run(None).steady().refused > 90.0, "{policy:?}");
    }
}

#[test]
fn a_result_has_a_line_for_each_arrival() {
    let trace = trace();
    let what = Replay::new(&trace, &[2, 2, 2, 3], PolicyName::Stowage);
    assert_eq!(
        replay(what, |_| ()).to_csv(&trace),
        "arrival,row,node,gpus\n0,2,a,0-1\n1,2,a,2-3\n2,2,,\n3,3,a,\n"
    );
}

#[test]
fn the_allocation_is_the_mean_while_so_much_was_asked_for() {
    let milli = vec![(9_960, 9_000), (10_040, 9_500), (10_051, 9_600), (12_000, 9_700)];
    let run = Run { capacity_milli: 10_000, milli, ..Run::default() };
    assert_eq!(run.curve(), [(100, 92.5), (101, 96.0), (120, 97.0)]);
    assert_eq!((run.alloc_at(100), run.alloc_at(110)), (Some(92.5), None));
}

#[test]
fn the_plot_has_a_line_for_each_run() {
    let line =
        |name: &str, alloc| Line { name: name.to_owned(), points: vec![(90, alloc), (130, alloc + 1.0)] };
    let svg = plot(&[line("stowage", 95.0), line("a<b", 90.0)]);
    assert_eq!(svg.matches("<polyline").count(), 2);
    assert!(svg.contains("stowage 96.00") && svg.contains("a&lt;b 91.00") && svg.ends_with("</svg>\n"));
    assert!(plot(&[]).contains("</svg>"));
}

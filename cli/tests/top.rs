//! The screen of `kubectl stowage top`, drawn into memory: the recorded cluster, keys, and five thousand nodes.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Cluster, NOW, here};
use kubectl_stowage::objects::Objects;
use kubectl_stowage::schedulers::Schedulers;
use kubectl_stowage::top::draw::{Colours, draw};
use kubectl_stowage::top::view::{Flow, Read, View};
use kubectl_stowage::world::World;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;
use serde_json::{Value, json};

struct Screen {
    terminal: Terminal<TestBackend>,
    view: View,
}

impl Screen {
    fn of(width: u16, height: u16, namespace: Option<&str>, world: World) -> Self {
        let mut view = View::new(namespace.map(str::to_owned));
        view.update(Ok(Read { world: Arc::new(world), took_ms: 7 }));
        Self { terminal: Terminal::new(TestBackend::new(width, height)).unwrap(), view }
    }

    async fn recorded(namespace: Option<&str>) -> Self {
        Self::of(130, 14, namespace, world(&Cluster::recorded().await).await)
    }

    fn press(&mut self, keys: &str) {
        for key in keys.chars() {
            let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
            assert_eq!(self.view.press(KeyEvent::new(code, KeyModifiers::NONE)), Flow::On, "{key:?}");
        }
    }

    fn text(&mut self) -> String {
        self.terminal.draw(|frame| draw(&mut self.view, Colours(true), frame)).unwrap();
        let buffer = self.terminal.backend().buffer();
        let lines = buffer.content().chunks(usize::from(buffer.area.width));
        let line =
            |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect::<String>();
        lines.map(|cells| line(cells).trim_end().to_owned() + "\n").collect()
    }

    /// The names of the nodes, from top to bottom.
    fn order(&mut self) -> Vec<String> {
        let text = self.text();
        let names = text.lines().filter(|line| line.starts_with("gpu-node-") || line.starts_with("node-"));
        names.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }
}

async fn world(cluster: &Cluster) -> World {
    let connected = cluster.connected(None).await;
    let objects = Objects::read(&connected.client, NOW.parse().unwrap()).await.unwrap();
    World::of(&objects, &Schedulers::default())
}

fn check(name: &str, text: &str) {
    let path = here().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == golden, "{} is not what is shown now; it is:\n{text}", path.display());
}

#[tokio::test]
async fn the_screen_shows_the_sums_and_a_line_for_each_node() {
    let mut screen = Screen::recorded(None).await;
    check("top.txt", &screen.text());
    screen.press("\n");
    check("top-gpus.txt", &screen.text());
}

#[tokio::test]
async fn keys_sort_and_sort_the_other_way_round() {
    let mut screen = Screen::recorded(None).await;
    assert_eq!(screen.order(), [1, 2, 3, 4, 5].map(|n| format!("gpu-node-{n}")));
    screen.press("n");
    assert_eq!(screen.order()[0], "gpu-node-5");
    screen.press("u");
    assert_eq!(screen.order()[..3], ["gpu-node-3", "gpu-node-2", "gpu-node-1"]);
    screen.press("f");
    assert_eq!(screen.order()[0], "gpu-node-3");
    screen.press("h");
    assert_eq!(screen.order()[0], "gpu-node-3");
}

#[tokio::test]
async fn the_cursor_stays_on_its_node_and_a_filter_leaves_what_it_names() {
    let mut screen = Screen::recorded(None).await;
    screen.press("jj\n");
    assert!(screen.text().contains("GPU 0 NVIDIA H100"), "{}", screen.text());
    screen.press("u");
    assert!(screen.text().contains("GPU 0 NVIDIA H100"), "{}", screen.text());
    screen.press("/L40\n");
    assert_eq!(screen.order(), ["gpu-node-2"]);
    for _ in 0..2 {
        let escape = KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE);
        assert_eq!(screen.view.press(escape), Flow::On);
    }
    assert_eq!(screen.order().len(), 5);
    let quit = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.view.press(quit), Flow::Quit);
}

#[tokio::test]
async fn with_a_namespace_only_its_pods_nodes_are_shown() {
    let mut screen = Screen::recorded(Some("search")).await;
    assert_eq!(screen.order(), ["gpu-node-1"]);
}

#[tokio::test]
async fn what_was_read_stays_when_the_cluster_cannot_be_read() {
    let mut screen = Screen::recorded(None).await;
    screen.view.update(Err("no answer\u{1b}[2J".to_owned()));
    let text = screen.text();
    assert!(text.contains("no answer\u{fffd}[2J") && text.contains("gpu-node-1"), "{text}");
}

#[tokio::test]
async fn colours_are_only_where_they_are_wanted() {
    let mut screen = Screen::recorded(None).await;
    let colours = |screen: &mut Screen, wanted: bool| {
        screen.terminal.draw(|frame| draw(&mut screen.view, Colours(wanted), frame)).unwrap();
        screen.terminal.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset)
    };
    assert!(colours(&mut screen, true));
    assert!(!colours(&mut screen, false));
}

/// Five thousand nodes, one with a name of a GPU model that would clear the screen.
fn large() -> Vec<Value> {
    let mut objects = Vec::new();
    for n in 0..5_000 {
        let name = format!("node-{n:04}");
        let model = if n == 0 { "evil\u{1b}[2J\nmodel" } else { "NVIDIA L4" };
        objects.push(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": format!("UID-{n}")},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"nvidia.com/gpu": "1"}},
        }));
        objects.push(json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "GpuNode", "metadata": {"name": name}, "spec": {},
            "status": {
                "observedAt": NOW, "nodeUid": format!("UID-{n}"),
                "gpus": [{
                    "uuid": format!("GPU-{n}"), "index": 0, "model": model, "memoryMib": 23034,
                    "offers": [{"resource": "nvidia.com/gpu", "uuid": format!("GPU-{n}")}],
                    "utilization": {"gpuPercent": n % 100, "memoryPercent": 1},
                }],
            },
        }));
    }
    objects
}

#[test]
fn of_five_thousand_nodes_only_those_on_the_screen_are_drawn_and_no_escapes() {
    let objects = large();
    let of = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let objects = Objects {
        now: NOW.parse().unwrap(),
        nodes: of("Node").map(|object| serde_json::from_value(object.clone()).unwrap()).collect(),
        gpu_nodes: of("GpuNode")
            .map(|object| kubectl_stowage::objects::GpuNode {
                name: object["metadata"]["name"].as_str().unwrap().to_owned(),
                status: Ok(serde_json::from_value(object["status"].clone()).unwrap()),
            })
            .collect(),
        pods: Vec::new(),
    };
    let world = World::of(&objects, &Schedulers::default());
    let mut screen = Screen::of(120, 30, None, world);
    let text = screen.text();
    assert!(text.starts_with("5000 nodes, 5000 GPUs: 0 in use by 0 pods, 5000 free, 0 stranded"), "{text}");
    assert!(text.contains("evil\u{fffd}[2J\u{fffd}model") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(screen.order().len(), 26);
    screen.press("bG");
    let order = screen.order();
    assert_eq!((order.len(), order[25].as_str()), (26, "node-4900"));
    assert!(screen.text().contains("99 %") || screen.text().contains("0 %"));
}

//! The picture that readers are told, and what of it each of them lacks.
//!
//! Every part has the number of the change that made it. A reader says what it has seen and gets what is newer, piece by
//! piece; so nothing queues up for a slow one, and whatever changed twice meanwhile is told once.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::encode::{NodeText, quote};

/// About how much is sent at once, in bytes.
const PIECE: usize = 64 * 1024;
/// Nodes that went away are remembered so long; who has missed more is told everything again.
const GONE_MAX: usize = 1024;

/// What a look at the cluster has found.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Kinds of GPUs that came up, in the order of their numbers.
    pub(super) kinds: Vec<String>,
    /// Nodes that look different, by name.
    pub(super) nodes: Vec<(Arc<str>, NodeText)>,
    /// Nodes that are gone, or have no GPUs any more.
    pub(super) gone: Vec<Arc<str>>,
    /// What there is to tell beside nodes: with names, and without.
    pub(super) cluster: Option<[String; 2]>,
    /// Whether everything was looked at once.
    pub(super) complete: bool,
}

/// The picture.
#[derive(Debug, Default)]
pub(super) struct Scene {
    version: u64,
    kinds: Vec<String>,
    nodes: BTreeMap<Arc<str>, (u64, NodeText)>,
    gone: VecDeque<(u64, Arc<str>)>,
    /// Who has seen less than this may have missed one that is gone.
    forgotten: u64,
    cluster: (u64, [String; 2]),
    complete: bool,
}

/// What a reader has seen.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// All changes up to this one.
    seen: u64,
    /// Where it is: up to which change, and behind which node.
    walk: Option<(u64, Option<Arc<str>>)>,
    kinds: usize,
    ready: bool,
}

impl Scene {
    /// Takes a change in. Answers whether anything is different.
    pub(super) fn apply(&mut self, change: Change) -> bool {
        let next = self.version + 1;
        let mut news = !change.kinds.is_empty() || change.complete && !self.complete;
        self.kinds.extend(change.kinds);
        for (name, text) in change.nodes {
            // A plugin that writes the same again touches its node all the same.
            if self.nodes.get(&name).is_none_or(|(_, known)| *known != text) {
                self.nodes.insert(name, (next, text));
                news = true;
            }
        }
        for name in change.gone {
            if self.nodes.remove(&name).is_some() {
                self.gone.push_back((next, name));
                news = true;
            }
        }
        while self.gone.len() > GONE_MAX {
            self.forgotten = self.gone.pop_front().map_or(self.forgotten, |(version, _)| version);
        }
        if let Some(cluster) = change.cluster
            && cluster != self.cluster.1
        {
            self.cluster = (next, cluster);
            news = true;
        }
        self.complete |= change.complete;
        if news {
            self.version = next;
        }
        news
    }

    /// The number of the last change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Forgets all; numbers go on.
    pub(super) fn clear(&mut self) {
        let version = self.version + 1;
        *self = Self { version, forgotten: version, ..Self::default() };
    }

    /// The next piece of what a reader lacks; `None` where it has seen everything.
    pub(super) fn next(&self, cursor: &mut Cursor, names: bool) -> Option<Bytes> {
        if cursor.walk.is_none() && cursor.seen >= self.version {
            return None;
        }
        let mut text = String::new();
        if cursor.walk.is_none() {
            if cursor.seen == 0 || cursor.seen < self.forgotten {
                *cursor = Cursor::default();
                event(&mut text, "begin", &format!(r#"{{"names":{names}}}"#));
            }
            self.write_cluster(cursor, names, &mut text);
            self.write_gone(cursor, &mut text);
            cursor.walk = Some((self.version, None));
        }
        let (target, after) = cursor.walk.take().unwrap_or((self.version, None));
        let last = self.write_nodes(cursor, after.as_ref(), names, &mut text);
        if let Some(last) = last {
            cursor.walk = Some((target, Some(last)));
        } else {
            cursor.seen = target;
            if self.complete && !cursor.ready {
                cursor.ready = true;
                event(&mut text, "ready", "{}");
            }
        }
        Some(text.into())
    }

    fn write_cluster(&self, cursor: &Cursor, names: bool, text: &mut String) {
        let (version, [with, without]) = &self.cluster;
        if *version > cursor.seen {
            event(text, "cluster", if names { with } else { without });
        }
    }

    fn write_gone(&self, cursor: &Cursor, text: &mut String) {
        let mut names = String::new();
        let missed = self.gone.iter().filter(|(version, _)| cursor.seen > 0 && *version > cursor.seen);
        // One that came back is told as a node.
        for (_, name) in missed.filter(|(_, name)| !self.nodes.contains_key(name)) {
            names.push(if names.is_empty() { '[' } else { ',' });
            quote(&mut names, name);
        }
        if !names.is_empty() {
            names.push(']');
            event(text, "gone", &names);
        }
    }

    /// Writes about one piece. Answers with the last node written where there may be more.
    fn write_nodes(
        &self,
        cursor: &mut Cursor,
        after: Option<&Arc<str>>,
        names: bool,
        text: &mut String,
    ) -> Option<Arc<str>> {
        let start = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        let mut nodes = String::new();
        let mut last = None;
        for (name, (version, node)) in self.nodes.range::<Arc<str>, _>((start, Bound::Unbounded)) {
            if *version <= cursor.seen {
                continue;
            }
            if nodes.len() >= PIECE {
                break;
            }
            if !nodes.is_empty() {
                nodes.push(',');
            }
            node.write(names, &mut nodes);
            last = Some(name.clone());
        }
        if nodes.is_empty() {
            return None;
        }
        // A node may be newer than the walk, and of a kind that came with it.
        let kinds = self.kinds.get(cursor.kinds..).unwrap_or_default().join(",");
        cursor.kinds = self.kinds.len();
        event(text, "nodes", &format!(r#"{{"kinds":[{kinds}],"nodes":[{nodes}]}}"#));
        last.filter(|_| nodes.len() >= PIECE)
    }
}

/// Writes an event. JSON has no line breaks of its own.
fn event(text: &mut String, name: &str, json: &str) {
    // Writing to a String does not fail.
    let _ = write!(text, "event: {name}\ndata: {json}\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, what: &str) -> (Arc<str>, NodeText) {
        let head = format!("[\"{name}\",0,[{what}],");
        (name.into(), NodeText { head, pods: r#"[["ns","pod"]]"#.into(), count: 1 })
    }

    fn change(nodes: &[(&str, &str)]) -> Change {
        Change { nodes: nodes.iter().map(|(name, what)| node(name, what)).collect(), ..Change::default() }
    }

    /// All that a reader lacks, as `event data` lines.
    fn read(scene: &Scene, cursor: &mut Cursor, names: bool) -> Vec<String> {
        let mut all = String::new();
        while let Some(piece) = scene.next(cursor, names) {
            all += std::str::from_utf8(&piece).unwrap();
        }
        let events = all.split("\n\n").filter(|event| !event.is_empty());
        events.map(|event| event.replace("event: ", "").replace("\ndata: ", " ")).collect()
    }

    #[test]
    fn a_reader_gets_everything_first_and_then_what_changed() {
        let (mut scene, mut cursor) = (Scene::default(), Cursor::default());
        assert!(scene.apply(Change { kinds: vec!["{}".into()], ..change(&[("a", "1"), ("b", "1")]) }));
        assert!(scene.apply(Change {
            complete: true,
            cluster: Some(["x".into(), "y".into()]),
            ..Change::default()
        }));
        let all = read(&scene, &mut cursor, true);
        let nodes = r#"nodes {"kinds":[{}],"nodes":[["a",0,[1],[["ns","pod"]]],["b",0,[1],[["ns","pod"]]]]}"#;
        assert_eq!(all, [r#"begin {"names":true}"#, "cluster x", nodes, "ready {}"]);
        assert_eq!(read(&scene, &mut cursor, true), [""; 0]);
        assert!(!scene.apply(change(&[("a", "1")])), "the same again is no news");
        scene.apply(change(&[("b", "2")]));
        scene.apply(change(&[("b", "3")]));
        assert_eq!(
            read(&scene, &mut cursor, true),
            [r#"nodes {"kinds":[],"nodes":[["b",0,[3],[["ns","pod"]]]]}"#]
        );
        scene.apply(Change { gone: vec!["a".into()], ..Change::default() });
        assert_eq!(read(&scene, &mut cursor, true), [r#"gone ["a"]"#]);
    }

    #[test]
    fn who_may_not_read_names_gets_none() {
        let mut scene = Scene::default();
        scene.apply(Change { cluster: Some(["with".into(), "without".into()]), ..change(&[("a", "1")]) });
        let all = read(&scene, &mut Cursor::default(), false).concat();
        assert!(!all.contains("pod") && !all.contains("ns") && !all.contains("with\n"), "{all}");
        assert!(all.contains(r#"["a",0,[1],1]"#) && all.contains("cluster without"), "{all}");
    }

    #[test]
    fn a_large_picture_comes_in_pieces_and_stays_whole_while_it_changes() {
        let mut scene = Scene::default();
        let long = "1,".repeat(500) + "1";
        let names: Vec<String> = (0..500).map(|n| format!("node-{n:03}")).collect();
        scene.apply(change(&names.iter().map(|name| (&**name, &*long)).collect::<Vec<_>>()));
        let mut cursor = Cursor::default();
        let first = scene.next(&mut cursor, true).unwrap();
        assert!(first.len() > PIECE && first.len() < 2 * PIECE, "{}", first.len());
        // One that was told, one that was not, one that goes and one of a kind that nobody was told of.
        scene.apply(Change {
            kinds: vec![r#"{"new":1}"#.into()],
            ..change(&[("node-000", "7"), ("node-499", "7")])
        });
        scene.apply(Change { gone: vec!["node-001".into()], ..Change::default() });
        let rest = read(&scene, &mut cursor, true).join("\n");
        assert_eq!(rest.matches(r#"{"new":1}"#).count(), 1);
        assert!(rest.contains(r#"["node-000",0,[7],"#) && rest.contains(r#"gone ["node-001"]"#));
        let kind = rest.find(r#"{"new":1}"#).unwrap();
        assert!(kind < rest.find(r#"["node-499",0,[7],"#).unwrap(), "a kind comes before its first node");
    }

    #[test]
    fn who_missed_too_much_begins_again() {
        let (mut scene, mut cursor) = (Scene::default(), Cursor::default());
        scene.apply(change(&[("a", "1")]));
        read(&scene, &mut cursor, true);
        for n in 0..=GONE_MAX {
            let name = format!("n{n}");
            scene.apply(change(&[(&name, "1")]));
            scene.apply(Change { gone: vec![name.into()], ..Change::default() });
        }
        let all = read(&scene, &mut cursor, true);
        assert!(all[0].starts_with("begin") && all[1].contains(r#"["a""#), "{all:?}");
        scene.clear();
        scene.apply(change(&[("b", "1")]));
        assert!(read(&scene, &mut cursor, true)[0].starts_with("begin"));
    }
}

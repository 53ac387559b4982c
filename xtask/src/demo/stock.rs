//! The stock policy without any process: kube-scheduler's own rules on numbers in memory.
//!
//! It runs the stand-in's pure half, so it decides as the stand-in does; what it leaves out is which GPU
//! of a node a pod gets, which changes nothing for pods of one device each. A day takes milliseconds: the
//! search for the best split plays many.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use stowage_stand_ins::scheduler::{Amounts, Cache, Node, Pod, PodAmounts, ScoreWeights, choose};

use super::play::{Cluster, Seen, Way};
use super::replicas::Replica;
use super::services::Piece;
use super::split::{CPU_NODE, CPU_NODE_CPU_AND_MEMORY, GPU_NODE_CPU_AND_MEMORY, NODES, Split};

/// What every Node says it has room for.
pub const PODS_PER_NODE: i64 = 110;

/// The nodes of a split under the stock scheduler.
pub struct StockCluster {
    way: Way,
    cache: Cache,
    waiting: Vec<Arc<Pod>>,
    placed: BTreeMap<String, String>,
    random: ChaCha8Rng,
}

impl StockCluster {
    /// Empty nodes.
    pub fn new(split: &Split, way: Way, seed: u64) -> Self {
        let mut cache = Cache::default();
        for (setup, (name, _)) in split.0.iter().zip(NODES) {
            let devices =
                setup.allocatable().into_iter().map(|(resource, n)| (resource.to_owned(), i64::from(n)));
            cache.set_node(node(name, GPU_NODE_CPU_AND_MEMORY, devices));
        }
        cache.set_node(node(CPU_NODE, CPU_NODE_CPU_AND_MEMORY, []));
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self { way, cache, waiting: Vec::new(), placed: BTreeMap::new(), random }
    }
}

impl Cluster for StockCluster {
    async fn delete(&mut self, pods: &[Replica]) -> Result<()> {
        for pod in pods {
            self.cache.remove_pod(&pod.name);
            self.placed.remove(&pod.name);
            self.waiting.retain(|waiting| waiting.uid != pod.name);
        }
        Ok(())
    }

    async fn create(&mut self, pods: &[Replica]) -> Result<()> {
        let way = self.way;
        self.waiting.extend(pods.iter().map(|replica| Arc::new(pod(replica, way))));
        Ok(())
    }

    async fn settle(&mut self) -> Result<Seen> {
        let mut still = Vec::new();
        for pod in self.waiting.drain(..) {
            match choose(&self.cache, &pod, ScoreWeights::default(), &mut self.random) {
                Ok(node) => {
                    self.cache.place(pod.clone(), &node);
                    self.placed.insert(pod.uid.clone(), node);
                }
                Err(_) => still.push(pod),
            }
        }
        self.waiting = still;
        Ok(Seen { nodes: self.placed.clone(), ..Seen::default() })
    }
}

fn pod(replica: &Replica, way: Way) -> Pod {
    let amounts = PodAmounts::single(requests(way.granted(replica.piece), replica.piece));
    Pod { uid: replica.name.clone(), name: replica.name.clone(), amounts, ..Pod::default() }
}

/// What a pod asks for that needs one piece and is given another.
fn requests(granted: Piece, needed: Piece) -> Amounts {
    let (milli_cpu, memory_gib) = needed.cpu_and_memory();
    let others = granted.resource().map(|resource| (resource.to_owned(), 1)).into_iter().collect();
    Amounts { milli_cpu, memory_bytes: memory_gib << 30, others }
}

fn node(name: &str, (cores, gib): (i64, i64), devices: impl IntoIterator<Item = (String, i64)>) -> Node {
    let pods = [("pods".to_owned(), PODS_PER_NODE)];
    let others = devices.into_iter().chain(pods).collect();
    let allocatable = Amounts { milli_cpu: cores * 1000, memory_bytes: gib << 30, others };
    Node { name: name.to_owned(), allocatable, ..Node::default() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stowage_stand_ins::api_server::resources::{NODES as NODE_RESOURCE, PODS};
    use stowage_stand_ins::api_server::{DeleteOptions, ListOptions, Part, Store, StoreOptions};
    use stowage_stand_ins::scheduler::{QueueOptions, Scheduler, SchedulerOptions};

    use super::super::play::play;
    use super::super::services::Day;
    use super::super::split::NodeSetup;
    use super::super::stage::objects;
    use super::*;

    /// The same nodes on the stand-ins for API server and scheduler; nobody runs the pods.
    struct StandIns {
        store: Store,
        scheduler: Scheduler,
        way: Way,
    }

    impl StandIns {
        async fn start(split: &Split, way: Way, seed: u64) -> Self {
            let store = Store::new(StoreOptions { seed, ..StoreOptions::default() });
            for (setup, (name, _)) in split.0.iter().zip(NODES) {
                store.create(&NODE_RESOURCE, "", objects::node(name, GPU_NODE_CPU_AND_MEMORY)).unwrap();
                let devices = setup.allocatable();
                let count = |node: &mut serde_json::Value| {
                    devices.iter().for_each(|(r, n)| node["status"]["allocatable"][r] = n.to_string().into());
                };
                store.modify(&NODE_RESOURCE, "", name, Part::Status, count).unwrap();
            }
            store.create(&NODE_RESOURCE, "", objects::node(CPU_NODE, CPU_NODE_CPU_AND_MEMORY)).unwrap();
            let queue = QueueOptions { backoff_initial: Duration::ZERO, ..QueueOptions::default() };
            let options = SchedulerOptions { queue, bindings_max: 0, ..SchedulerOptions::stock(seed) };
            let scheduler = Scheduler::start(store.clone(), options);
            scheduler.idle().await.unwrap();
            Self { scheduler, store, way }
        }
    }

    impl Cluster for StandIns {
        async fn delete(&mut self, pods: &[Replica]) -> Result<()> {
            let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
            for pod in pods {
                self.store.delete(&PODS, objects::NAMESPACE, &pod.name, &now)?;
            }
            Ok(())
        }

        async fn create(&mut self, pods: &[Replica]) -> Result<()> {
            for pod in pods {
                self.store.create(&PODS, objects::NAMESPACE, objects::pod(pod, self.way))?;
            }
            Ok(())
        }

        async fn settle(&mut self) -> Result<Seen> {
            self.scheduler.idle().await?;
            let pods = self.store.list(&PODS, &ListOptions::default())?.items;
            let node = |pod: &serde_json::Value| Some(pod["spec"]["nodeName"].as_str()?.to_owned());
            let nodes = pods.iter().filter_map(|pod| Some((pod.name().to_owned(), node(pod)?))).collect();
            Ok(Seen { nodes, ..Seen::default() })
        }
    }

    /// Remembers what was seen at each step.
    struct Recorded<C>(C, Vec<Seen>);

    impl<C: Cluster> Cluster for Recorded<C> {
        async fn delete(&mut self, pods: &[Replica]) -> Result<()> {
            self.0.delete(pods).await
        }

        async fn create(&mut self, pods: &[Replica]) -> Result<()> {
            self.0.create(pods).await
        }

        async fn settle(&mut self) -> Result<Seen> {
            let seen = self.0.settle().await?;
            self.1.push(seen.clone());
            Ok(seen)
        }
    }

    /// What the search believes must be what the stand-in does: node for node, seed for seed.
    #[tokio::test]
    async fn the_simulation_places_every_pod_where_the_scheduler_stand_in_does() {
        let shared = |mig: Vec<usize>| NodeSetup { mig, shared: true, elastic: false };
        let by_hand = Split([shared(vec![2; 3]), shared(vec![2; 8]), NodeSetup::WHOLE, shared(Vec::new())]);
        for (way, split) in [(Way::Stock, by_hand), (Way::Whole, Split::WHOLE)] {
            let day = Day::generate(5, 24);
            let mut simulated = Recorded(StockCluster::new(&split, way, 5), Vec::new());
            play(&day, way, 5, &mut simulated, |_, _| {}).await.unwrap();
            let mut played = Recorded(StandIns::start(&split, way, 5).await, Vec::new());
            play(&day, way, 5, &mut played, |_, _| {}).await.unwrap();
            for (step, (simulated, played)) in simulated.1.iter().zip(&played.1).enumerate() {
                assert!(!simulated.nodes.is_empty());
                assert_eq!(simulated, played, "{way:?}, step {step}");
            }
        }
    }
}

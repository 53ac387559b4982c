//! Which of the nodes that fit is chosen.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::script::{Script, pod};
use super::{Side, WIDGET};

/// More points than kube-scheduler's own scores can make up for: the two that count here give 100 each, and a
/// point counts 10.
const POINTS_MAX: i64 = 21;

impl<S: Side> Script<'_, S> {
    /// How much kube-scheduler itself likes one node better than another. The amounts are such that no number
    /// of points makes two nodes equal, which would leave the choice to chance.
    pub(super) async fn scores(&mut self, scheduler: &S::Scheduler) -> Result<()> {
        let amounts = [
            ("nothing", json!({})),
            ("CPU", json!({ "cpu": "1500m" })),
            ("memory", json!({ "memory": "3Gi" })),
            ("both", json!({ "cpu": "1700m", "memory": "2Gi" })),
            ("a lot", json!({ "cpu": "2300m", "memory": "5Gi" })),
            ("widgets", json!({ "cpu": "900m", "memory": "1Gi", WIDGET: "1" })),
        ];
        let little = [json!({ "cpu": "700m", "memory": "512Mi", WIDGET: "1" }), json!({ "cpu": "300m" })];
        let much = [json!({ "cpu": "4100m", "memory": "4Gi" }), json!({ "cpu": "1100m", "memory": "8Gi" })];
        for (taken, [on_b, on_c]) in [("little", little), ("much", much)] {
            self.create(holding("holder-b", "b", on_b)).await?;
            self.create(holding("holder-c", "c", on_c)).await?;
            for (step, requests) in &amounts {
                let mut margins = Vec::new();
                let all = [("b", "a"), ("c", "a"), ("b", "c")];
                // There are no widgets on c.
                let pairs = if requests.get(WIDGET).is_some() { &all[..1] } else { &all };
                for &(first, second) in pairs {
                    let margin = self.margin("", scheduler, (first, second), requests).await?;
                    margins.push(format!("{first} over {second} {margin}"));
                }
                self.note(&format!("asks for {step}, {taken} is taken"), margins.join(", "));
            }
            self.delete(&["holder-b", "holder-c"]).await?;
        }
        Ok(())
    }

    /// The fewest points that an extender must give the second node, the first having none, for a pod to go
    /// there. The paths of its verbs begin with `prefix`.
    pub(super) async fn margin(
        &mut self,
        prefix: &str,
        scheduler: &S::Scheduler,
        (first, second): (&'static str, &'static str),
        requests: &Value,
    ) -> Result<i64> {
        let (mut too_few, mut enough) = (-POINTS_MAX - 1, POINTS_MAX + 1);
        self.extender.say(&format!("{prefix}filter"), 200, json!({ "NodeNames": [first, second] }));
        while enough - too_few > 1 {
            let points = (enough + too_few).div_euclid(2);
            self.extender.like(&format!("{prefix}prioritize"), [(second, points)]);
            let (outcome, _) = self.tried(scheduler, pod("scored", requests.clone())).await?;
            let node = outcome.strip_prefix("on ").with_context(|| outcome.clone())?;
            ensure!([first, second].contains(&node), "{node} is neither {first} nor {second}");
            *(if node == second { &mut enough } else { &mut too_few }) = points;
        }
        self.extender.agree();
        Ok(enough)
    }

    /// What an extender's `prioritize` may answer.
    pub(super) async fn priorities(&mut self, scheduler: &S::Scheduler) -> Result<()> {
        let score = |host: &str, score: i64| json!({ "Host": host, "Score": score });
        for (step, status, answer) in [
            ("one", 200, json!([score("a", 10), score("b", 0), score("c", 0)])),
            ("only one told", 200, json!([score("c", 10)])),
            ("nobody", 200, json!([])),
            ("null", 200, json!(null)),
            ("below zero", 200, json!([score("b", -10), score("c", -10)])),
            ("beyond ten", 200, json!([score("b", 10), score("a", 30)])),
            ("a stranger", 200, json!([score("z", 10), score("a", 10)])),
            ("twice", 200, json!([score("a", 10), score("a", 0)])),
            ("twice, together", 200, json!([score("a", 10), score("a", 10), score("c", 14)])),
            ("status 500", 500, json!([score("a", 10)])),
            ("an object", 200, json!({ "Host": "a", "Score": 10 })),
        ] {
            self.extender.say("prioritize", status, answer);
            // By itself it would be b.
            let pod = pod("liked", json!({ "cpu": "1", "memory": "1Gi" }));
            self.try_pod(&format!("prioritize: {step}"), scheduler, pod).await?;
        }
        self.extender.agree();
        Ok(())
    }
}

/// A pod that is on its node already: no scheduler is asked.
pub(super) fn holding(name: &str, node: &str, requests: Value) -> Value {
    let mut pod = pod(name, requests);
    pod["spec"]["nodeName"] = json!(node);
    pod
}

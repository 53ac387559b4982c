//! Several extenders, each with resources of its own, one of which need not answer.

use anyhow::Result;
use serde_json::{Value, json};

use super::script::{Script, configuration, container, pod};
use super::{GADGET, Side, WIDGET};

impl<S: Side> Script<'_, S> {
    /// Who is asked about what, in which order, and with what weight; and kube-scheduler's own scores, some of
    /// which are off.
    pub(super) async fn several_extenders(&mut self) -> Result<()> {
        let extender = |name: &str, resource: &str, more: Value| {
            let mut extender = json!({
                "urlPrefix": format!("{}{name}/", self.extender.url()),
                "filterVerb": "filter",
                "prioritizeVerb": "prioritize",
                "nodeCacheCapable": true,
                "managedResources": [{ "name": resource }],
            });
            for (key, value) in more.as_object().into_iter().flatten() {
                extender[key] = value.clone();
            }
            extender
        };
        let extenders = vec![
            extender("gadgets", GADGET, json!({ "ignorable": true, "weight": 1, "bindVerb": "bind" })),
            extender("widgets", WIDGET, json!({ "weight": 3 })),
        ];
        let off = json!({ "disabled": [{ "name": "NodeResourcesBalancedAllocation" }, { "name": "ImageLocality" }] });
        let plugins = json!({ "score": off, "preScore": { "disabled": [{ "name": "NodeResourcesBalancedAllocation" }] } });
        self.add_gadgets().await?;
        let scheduler = self.side.start_scheduler(configuration(plugins, extenders))?;
        self.who_is_asked(&scheduler).await?;
        self.who_fails(&scheduler).await?;
        self.whose_word_weighs(&scheduler).await?;
        // Other than where the balance counts as well.
        let requests = json!({ "cpu": "3", GADGET: "1" });
        let margin = self.margin("gadgets/", &scheduler, ("b", "a"), &requests).await?;
        self.note("asks for CPU, and nothing is balanced", format!("b over a {margin}"));
        Ok(())
    }

    async fn who_is_asked(&mut self, scheduler: &S::Scheduler) -> Result<()> {
        let both = json!({ WIDGET: "1", GADGET: "1" });
        for (step, requests) in [
            ("neither", json!({ "cpu": "1", "memory": "1Gi" })),
            ("widgets", json!({ "cpu": "1", WIDGET: "1" })),
            ("gadgets", json!({ "cpu": "1", "memory": "4Gi", GADGET: "1" })),
            ("both", both.clone()),
            ("no widgets", json!({ "cpu": "1", WIDGET: "0" })),
        ] {
            self.like_b();
            self.try_managed(&format!("managed: {step}"), scheduler, pod("managed", requests)).await?;
        }
        let mut first = pod("managed", json!({ "cpu": "1" }));
        first["spec"]["initContainers"] = json!([container("first", json!({ WIDGET: "1" }))]);
        self.try_managed("managed: an init container", scheduler, first).await?;

        self.like_b();
        self.extender.say("widgets/filter", 200, json!({ "NodeNames": ["a"] }));
        self.try_managed("managed: the second sees what is left", scheduler, pod("managed", both.clone()))
            .await?;
        self.extender.say(
            "widgets/filter",
            200,
            json!({ "NodeNames": [], "FailedNodes": { "a": "is full" } }),
        );
        self.try_managed("managed: nothing is left", scheduler, pod("managed", both)).await?;
        self.extender.agree();
        Ok(())
    }

    /// Only one of them may fail.
    async fn who_fails(&mut self, scheduler: &S::Scheduler) -> Result<()> {
        let both = || pod("managed", json!({ WIDGET: "1", GADGET: "1" }));
        for (step, path, status, answer) in [
            ("500", "gadgets/filter", 500, json!({})),
            ("error", "gadgets/filter", 200, json!({ "NodeNames": [], "Error": "no idea" })),
            ("nobody", "gadgets/filter", 200, json!({ "NodeNames": [], "FailedNodes": { "b": "is full" } })),
            ("bind 500", "gadgets/bind", 500, json!({})),
            ("bind error", "gadgets/bind", 200, json!({ "Error": "out of string" })),
            ("500", "widgets/filter", 500, json!({})),
        ] {
            self.like_b();
            self.extender.say(path, status, answer);
            self.try_managed(&format!("{path} fails: {step}"), scheduler, both()).await?;
        }
        self.extender.agree();
        Ok(())
    }

    async fn whose_word_weighs(&mut self, scheduler: &S::Scheduler) -> Result<()> {
        for points in [20, 29, 31, 40] {
            self.extender.like("widgets/prioritize", [("a", 10)]);
            self.extender.like("gadgets/prioritize", [("b", points)]);
            // Both have it in equal measure, so that only points count.
            self.extender.say("widgets/filter", 200, json!({ "NodeNames": ["a", "b"] }));
            let pod = pod("managed", json!({ WIDGET: "1", GADGET: "1" }));
            self.try_managed(&format!("10 for a, thrice; {points} for b"), scheduler, pod).await?;
        }
        self.extender.agree();
        Ok(())
    }

    fn like_b(&self) {
        self.extender.agree();
        self.extender.like("widgets/prioritize", [("b", 50)]);
        self.extender.like("gadgets/prioritize", [("b", 50)]);
    }

    /// As [`Script::try_pod`]; extenders are asked for their scores all at once.
    async fn try_managed(&mut self, step: &str, scheduler: &S::Scheduler, pod: Value) -> Result<()> {
        let (outcome, asked) = self.tried(scheduler, pod).await?;
        let (mut scores, others): (Vec<&str>, Vec<&str>) =
            asked.lines().partition(|line| line.contains("/prioritize "));
        scores.sort_unstable();
        let lines = [vec![outcome.as_str()], others, scores].concat();
        self.note(step, lines.join("\n"));
        Ok(())
    }

    /// Gives some nodes gadgets.
    async fn add_gadgets(&self) -> Result<()> {
        for name in ["a", "b", "late"] {
            self.grow(name, json!({ GADGET: "2" })).await?;
        }
        Ok(())
    }
}

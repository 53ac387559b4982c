//! What becomes of a pod later: its binding, and its next try.

use anyhow::Result;
use serde_json::json;
use stowage_cluster_tests::wait_until;

use super::scores::holding;
use super::script::{LIMIT, Script, node, pod};
use super::{Side, WIDGET};

impl<S: Side> Script<'_, S> {
    /// What an extender's `bind` may answer.
    pub(super) async fn bindings(&mut self, scheduler: &S::Scheduler) -> Result<()> {
        for (step, status, answer) in
            [("error", 200, json!({ "Error": "out of string" })), ("status 500", 500, json!({ "Error": "" }))]
        {
            self.extender.like("prioritize", [("a", 50)]);
            self.extender.say("bind", status, answer);
            self.create(pod("unbound", json!({ WIDGET: "4" }))).await?;
            let outcome = self.decided(scheduler, "unbound").await?;
            self.note(&format!("bind: {step}"), format!("{outcome}\n{}", self.asked("unbound")));
            self.extender.agree();
            self.extender.like("prioritize", [("a", 50)]);
            let outcome = self.placed("unbound").await?;
            self.note(&format!("bind: {step}, next try"), outcome);
            self.delete(&["unbound"]).await?;
        }
        self.extender.bind_and_deny("it did not work, did it?");
        let (outcome, asked) = self.tried(scheduler, pod("bound", json!({ WIDGET: "5" }))).await?;
        self.note("bind: error, and bound", format!("{outcome}\n{asked}"));
        self.extender.agree();
        // The place is counted as free, or this one would have to wait.
        self.try_pod("after bound", scheduler, pod("next", json!({ WIDGET: "8" }))).await
    }

    /// What makes a pod that waits be tried again.
    pub(super) async fn waking(&mut self, scheduler: &S::Scheduler) -> Result<()> {
        self.placed_pod_wakes_who_was_filtered_out(scheduler).await?;

        self.create(holding("holder", "b", json!({ WIDGET: "1" }))).await?;
        self.create(pod("large", json!({ WIDGET: "8" }))).await?;
        let outcome = self.decided(scheduler, "large").await?;
        self.note("no room", outcome);
        self.delete(&["holder"]).await?;
        let outcome = self.placed("large").await?;
        self.note("room", outcome);

        self.create(pod("second", json!({ WIDGET: "8" }))).await?;
        let outcome = self.decided(scheduler, "second").await?;
        self.note("no room for a second", outcome);
        self.patch_status("large", json!({ "status": { "phase": "Succeeded" } })).await?;
        let outcome = self.placed("second").await?;
        self.note("the first has ended", outcome);
        self.delete(&["large", "second"]).await?;

        let mut gated = pod("gated", json!({ WIDGET: "5" }));
        gated["spec"]["schedulingGates"] = json!([{ "name": "example.com/gate" }]);
        self.create(gated).await?;
        self.try_pod("while another is gated", scheduler, pod("free", json!({ WIDGET: "5" }))).await?;
        self.note("gated", self.asked("gated"));
        self.patch("gated", json!({ "spec": { "schedulingGates": null } })).await?;
        let outcome = self.placed("gated").await?;
        self.note("gate open", format!("{outcome}\n{}", self.asked("gated")));
        self.delete(&["gated"]).await?;

        let mut early = pod("early", json!({ WIDGET: "1" }));
        early["spec"]["nodeSelector"]["called"] = json!("late");
        self.create(early).await?;
        let outcome = self.decided(scheduler, "early").await?;
        self.note("no such node", outcome);
        self.side.add_node(node("late", json!({}), ("4", "8Gi", "110", 4))?).await?;
        let outcome = self.placed("early").await?;
        self.note("a node comes", format!("{outcome}\n{}", self.asked("early")));
        self.delete(&["early"]).await
    }

    /// The extender's reasons are unknown, so anything may help.
    async fn placed_pod_wakes_who_was_filtered_out(&mut self, scheduler: &S::Scheduler) -> Result<()> {
        self.extender.answer("filter", |asked| {
            let refused = asked["Pod"]["metadata"]["name"] == "refused";
            let names = if refused { json!([]) } else { json!(["b"]) };
            (200, json!({ "NodeNames": names, "FailedNodes": { "b": "not now" } }))
        });
        self.create(pod("refused", json!({ WIDGET: "1" }))).await?;
        let outcome = self.decided(scheduler, "refused").await?;
        self.note("refused", format!("{outcome}\n{}", self.asked("refused")));
        let tries = self.questions_about("refused").len();
        self.create(pod("other", json!({}))).await?;
        let outcome = self.placed("other").await?;
        wait_until(LIMIT, "another question about the refused pod", async || {
            anyhow::ensure!(self.questions_about("refused").len() > tries, "none yet");
            Ok(())
        })
        .await?;
        self.note("another is placed", format!("{outcome}, and the refused one is tried again"));
        self.extender.agree();
        self.extender.like("prioritize", [("c", 50), ("b", 25)]);
        self.delete(&["other"]).await?;
        let outcome = self.placed("refused").await?;
        self.note("another is gone", outcome);
        self.extender.agree();
        self.delete(&["refused"]).await
    }
}

//! The map: every GPU and who is on it.

use anyhow::Result;
use serde_json::{Value, json};
use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu_node::{AllocationStatus, GpuNodeStatus, OfferStatus};

use crate::answer::Answer;
use crate::objects::GpuNode;
use crate::page::{Page, Tone, plain, toned};

/// Every GPU of every node.
///
/// # Errors
/// Where the answer cannot be said.
pub fn map(nodes: &[GpuNode]) -> Result<Answer> {
    let mut page = Page::default();
    for node in nodes {
        match &node.status {
            Ok(status) => node_text(&mut page, &node.name, status),
            Err(why) => page.tone(Tone::Bad, format!("{}: its GpuNode cannot be read: {why}", node.name)),
        }
    }
    if nodes.is_empty() {
        page.say("No GpuNodes: no device plugin of Stowage has written one yet.");
    }
    let json = |node: &GpuNode| match &node.status {
        Ok(status) => json!({ "node": node.name, "status": status }),
        Err(why) => json!({ "node": node.name, "error": why }),
    };
    let value: Vec<Value> = nodes.iter().map(json).collect();
    Answer::new(page, &value)
}

fn node_text(page: &mut Page, node: &str, status: &GpuNodeStatus) {
    let (gpus, in_use) = (status.gpus.len(), status.summary.in_use);
    page.line(vec![
        toned(Tone::Strong, node),
        plain(format!(": {gpus} GPUs, {in_use} in use, as of {}", status.observed_at)),
    ]);
    for gpu in &status.gpus {
        let health = gpu.unhealthy.as_ref().map(|why| format!("  UNHEALTHY: {why}")).unwrap_or_default();
        page.line(vec![
            plain(format!("  {:>2} {}  {}  {}", gpu.index, gpu.model, gpu.memory_mib, gpu.uuid)),
            toned(Tone::Bad, health),
        ]);
        for offer in &gpu.offers {
            page.say(format!("       {}", offer_text(offer, &status.allocations)));
        }
    }
}

fn offer_text(offer: &OfferStatus, allocations: &[AllocationStatus]) -> String {
    let place = offer.slice.as_ref().map(|slice| format!("@{}", slice.start)).unwrap_or_default();
    let holders: Vec<String> = allocations
        .iter()
        .filter(|held| held.resource == offer.resource)
        .flat_map(|held| held.device_ids.iter().filter(|id| part_of(id) == offer.uuid).map(move |_| held))
        .map(|held| format!("{}/{}", held.namespace, held.pod))
        .collect();
    let of = offer.replicas.map(|replicas| format!(" {}/{replicas}", holders.len())).unwrap_or_default();
    let nobody = if offer.unhealthy.is_some() { "nobody" } else { "free" };
    let who = if holders.is_empty() { nobody.to_owned() } else { holders.join(", ") };
    let health = offer.unhealthy.as_ref().map(|why| format!("  UNHEALTHY: {why}")).unwrap_or_default();
    format!("{}{place}{of}: {who}{health}", offer.resource)
}

/// The part that a device is of: all of a token is one.
fn part_of(device_id: &str) -> String {
    device_id.parse::<DeviceId>().map_or_else(|_| device_id.to_owned(), |id| id.part().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_shows_who_is_on_it() {
        let text = r#"{"observedAt":"2026-01-01T00:00:00Z","summary":{"gpus":2,"inUse":1},"gpus":[
            {"uuid":"GPU-a","index":0,"model":"M","memoryMib":40960,"offers":[
                {"resource":"nvidia.com/mig-1g.5gb","uuid":"MIG-x","slice":{"profile":"1g.5gb","start":3,"size":1}},
                {"resource":"nvidia.com/mig-1g.5gb","uuid":"MIG-y","slice":{"profile":"1g.5gb","start":4,"size":1}},
                {"resource":"nvidia.com/mig-1g.5gb","uuid":"MIG-z","slice":{"profile":"1g.5gb","start":5,"size":1},"unhealthy":"XID 94"},
                {"resource":"nvidia.com/mig-1g.5gb","uuid":"GPU-a::1g.5gb::3","slice":{"profile":"1g.5gb","start":6,"size":1}}]},
            {"uuid":"GPU-b","index":1,"model":"M","memoryMib":40960,"unhealthy":"lost","offers":[
                {"resource":"nvidia.com/gpu.shared","uuid":"GPU-b","replicas":4}]}],
            "allocations":[
                {"namespace":"d","pod":"p","container":"c","resource":"nvidia.com/mig-1g.5gb","deviceIds":["MIG-x"]},
                {"namespace":"d","pod":"q","container":"c","resource":"nvidia.com/gpu.shared","deviceIds":["GPU-b::2"]},
                {"namespace":"d","pod":"r","container":"c","resource":"nvidia.com/mig-1g.5gb","deviceIds":["GPU-a::1g.5gb::3"]}]}"#;
        let status: GpuNodeStatus = serde_json::from_str(text).unwrap();
        let nodes = [GpuNode { name: "n".into(), status: Ok(status) }];
        let out = map(&nodes).unwrap().page.render(crate::page::Style::Plain);
        let want = "\
n: 2 GPUs, 1 in use, as of 2026-01-01T00:00:00Z
   0 M  40960 MiB  GPU-a
       nvidia.com/mig-1g.5gb@3: d/p
       nvidia.com/mig-1g.5gb@4: free
       nvidia.com/mig-1g.5gb@5: nobody  UNHEALTHY: XID 94
       nvidia.com/mig-1g.5gb@6: d/r
   1 M  40960 MiB  GPU-b  UNHEALTHY: lost
       nvidia.com/gpu.shared 1/4: d/q
";
        assert_eq!(out, want);
    }
}

//! The map: every GPU and who is on it.
//!
//! It reads GpuNodes alone, so it knows nothing of Nodes and pods: what a Node's own state forbids, `nodes` says.

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};
use stowage_shared::belief::Unknown;
use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::Part;
use stowage_shared::gpu_node::{AllocationStatus, GpuNodeStatus, GpuStatus, OfferStatus, SliceStatus};
use stowage_shared::mig::MigSlice;

use crate::answer::Answer;
use crate::objects::GpuNode;
use crate::page::{Page, Tone, plain, toned};
use crate::world::Told;

/// Every GPU of every node, as of `now`.
///
/// # Errors
/// Where the answer cannot be said.
pub fn map(nodes: &[GpuNode], now: Timestamp) -> Result<Answer> {
    let mut page = Page::default();
    for node in nodes {
        match &node.status {
            Ok(status) => node_text(&mut page, node, status, now),
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

fn node_text(page: &mut Page, node: &GpuNode, status: &GpuNodeStatus, now: Timestamp) {
    let doubt = Told::of(&node.status).and_then(|told| {
        let old = told.is_old(now).then(|| Unknown::Old.text().to_owned());
        told.wrong.or(old)
    });
    let (gpus, in_use) = (status.gpus.len(), status.summary.in_use);
    page.line(vec![
        toned(Tone::Strong, node.name.clone()),
        plain(format!(": {gpus} GPUs, {in_use} in use, as of {}", status.observed_at)),
        toned(Tone::Bad, doubt.as_ref().map(|why| format!("  NOT BELIEVED: {why}")).unwrap_or_default()),
    ]);
    for gpu in &status.gpus {
        let health = gpu.unhealthy.as_ref().map(|why| format!("  UNHEALTHY: {why}")).unwrap_or_default();
        page.line(vec![
            plain(format!("  {:>2} {}  {}  {}", gpu.index, gpu.model, gpu.memory_mib, gpu.uuid)),
            toned(Tone::Bad, health),
        ]);
        for offer in &gpu.offers {
            page.say(format!("       {}", offer_text(offer, gpu, status, doubt.is_none())));
        }
    }
}

fn offer_text(offer: &OfferStatus, gpu: &GpuStatus, status: &GpuNodeStatus, believed: bool) -> String {
    let place = offer.slice.as_ref().map(|slice| format!("@{}", slice.start)).unwrap_or_default();
    let holders = holders(offer, status);
    let of = offer.replicas.map(|replicas| format!(" {}/{replicas}", holders.len())).unwrap_or_default();
    let excludes = |other: &&OfferStatus| {
        !std::ptr::eq(*other, offer)
            && part(offer).conflicts(&part(other))
            && !self::holders(other, status).is_empty()
    };
    let who = if !holders.is_empty() {
        holders.join(", ")
    } else if !believed || gpu.unhealthy.is_some() || offer.unhealthy.is_some() {
        "nobody".to_owned()
    } else if let Some(held) = leftover(offer, gpu, status) {
        format!("not while {}/{} has {}", held.namespace, held.pod, held.resource)
    } else if let Some(other) = gpu.offers.iter().find(excludes) {
        format!("not while {} is in use", other.resource)
    } else {
        "free".to_owned()
    };
    let health = offer.unhealthy.as_ref().map(|why| format!("  UNHEALTHY: {why}")).unwrap_or_default();
    format!("{}{place}{of}: {who}{health}", offer.resource)
}

/// Who holds devices of an offer, once for each.
fn holders(offer: &OfferStatus, status: &GpuNodeStatus) -> Vec<String> {
    let held = status.allocations.iter().filter(|held| held.resource == offer.resource);
    held.flat_map(|held| held.device_ids.iter().filter(|id| part_of(id) == offer.uuid).map(move |_| held))
        .map(|held| format!("{}/{}", held.namespace, held.pod))
        .collect()
}

/// Who has it under a name or in a form that is not offered any more.
fn leftover<'a>(
    offer: &OfferStatus,
    gpu: &GpuStatus,
    status: &'a GpuNodeStatus,
) -> Option<&'a AllocationStatus> {
    let is_in_the_way = |held: &AllocationStatus, id: &String| {
        let part = part_of(id);
        let is_offered = gpu.offers.iter().any(|of| of.resource == held.resource && of.uuid == part);
        let shares = part != *id && offer.replicas.is_some();
        !is_offered && !shares && (part == gpu.uuid.as_str() || part == offer.uuid)
    };
    status.allocations.iter().find(|held| held.device_ids.iter().any(|id| is_in_the_way(held, id)))
}

/// What of its GPU an offer is.
fn part(offer: &OfferStatus) -> Part {
    let slice = |SliceStatus { profile, start, size, media_engines }: SliceStatus| MigSlice {
        profile,
        start,
        size,
        media_engines,
    };
    offer.slice.clone().map_or(Part::Whole, |status| Part::Slice(slice(status)))
}

/// The part that a device is of: all of a token is one.
fn part_of(device_id: &str) -> String {
    device_id.parse::<DeviceId>().map_or_else(|_| device_id.to_owned(), |id| id.part().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: GpuNodeStatus, now: &str) -> String {
        let nodes = [GpuNode { name: "n".into(), status: Ok(status) }];
        map(&nodes, now.parse().unwrap()).unwrap().page.render(crate::page::Style::Plain)
    }

    #[test]
    fn a_gpu_shows_who_is_on_it() {
        let text = r#"{"observedAt":"2026-01-01T00:00:00Z","summary":{"gpus":2,"inUse":1},"gpus":[
            {"uuid":"GPU-a","index":0,"model":"M","memoryMib":40960,"offers":[
                {"resource":"nvidia.com/mig-1g.5gb","uuid":"MIG-x","slice":{"profile":"1g.5gb","start":3,"size":1}},
                {"resource":"nvidia.com/mig-1g.5gb","uuid":"MIG-y","slice":{"profile":"1g.5gb","start":4,"size":1}},
                {"resource":"nvidia.com/mig-1g.5gb","uuid":"MIG-z","slice":{"profile":"1g.5gb","start":5,"size":1},"unhealthy":"XID 94"},
                {"resource":"nvidia.com/mig-1g.5gb","uuid":"GPU-a::1g.5gb::3","slice":{"profile":"1g.5gb","start":6,"size":1}}]},
            {"uuid":"GPU-b","index":1,"model":"M","memoryMib":40960,"unhealthy":"lost","offers":[
                {"resource":"nvidia.com/gpu","uuid":"GPU-b"},
                {"resource":"nvidia.com/gpu.shared","uuid":"GPU-b","replicas":4}]}],
            "allocations":[
                {"namespace":"d","pod":"p","container":"c","resource":"nvidia.com/mig-1g.5gb","deviceIds":["MIG-x"]},
                {"namespace":"d","pod":"q","container":"c","resource":"nvidia.com/gpu.shared","deviceIds":["GPU-b::2"]},
                {"namespace":"d","pod":"r","container":"c","resource":"nvidia.com/mig-1g.5gb","deviceIds":["GPU-a::1g.5gb::3"]}]}"#;
        let status: GpuNodeStatus = serde_json::from_str(text).unwrap();
        let out = said(status, "2026-01-01T00:01:00Z");
        let want = "\
n: 2 GPUs, 1 in use, as of 2026-01-01T00:00:00Z
   0 M  40960 MiB  GPU-a
       nvidia.com/mig-1g.5gb@3: d/p
       nvidia.com/mig-1g.5gb@4: free
       nvidia.com/mig-1g.5gb@5: nobody  UNHEALTHY: XID 94
       nvidia.com/mig-1g.5gb@6: d/r
   1 M  40960 MiB  GPU-b  UNHEALTHY: lost
       nvidia.com/gpu: nobody
       nvidia.com/gpu.shared 1/4: d/q
";
        assert_eq!(out, want);
    }

    /// One GPU, offered whole, in shares and as a slice, of which a pod has a device: what each offer says at that time.
    #[track_caller]
    fn check(resource: &str, device: &str, now: &str, want: [&str; 3]) {
        let status = serde_json::json!({ "observedAt": "2026-01-01T00:00:00Z", "gpus": [
            { "uuid": "GPU-a", "index": 0, "model": "M", "memoryMib": 40960, "offers": [
                { "resource": "nvidia.com/gpu", "uuid": "GPU-a" },
                { "resource": "nvidia.com/gpu.shared", "uuid": "GPU-a", "replicas": 4 },
                { "resource": "nvidia.com/mig-1g.5gb", "uuid": "MIG-a", "slice": { "profile": "1g.5gb", "start": 3, "size": 1 } }] }],
            "allocations": [{ "namespace": "d", "pod": "p", "container": "c", "resource": resource, "deviceIds": [device] }] });
        let out = said(serde_json::from_value(status).unwrap(), now);
        let offers: Vec<&str> = out.lines().skip(2).map(|line| line.split_once(": ").unwrap().1).collect();
        assert_eq!(offers, want);
    }

    #[test]
    fn nothing_is_free_that_nobody_can_get() {
        let (now, later) = ("2026-01-01T00:09:00Z", "2026-01-01T00:10:00Z");
        let shares = "not while nvidia.com/gpu.shared is in use";
        check("nvidia.com/gpu.shared", "GPU-a::2", now, [shares, "d/p", shares]);
        let whole = "not while nvidia.com/gpu is in use";
        check("nvidia.com/gpu", "GPU-a", now, ["d/p", whole, whole]);
        let slice = "not while nvidia.com/mig-1g.5gb is in use";
        check("nvidia.com/mig-1g.5gb", "MIG-a", now, [slice, slice, "d/p"]);
        let old = "not while d/p has nvidia.com/old.shared";
        check("nvidia.com/old.shared", "GPU-a::2", now, [old, "free", old]);
        check("nvidia.com/gpu", "elsewhere", now, ["free"; 3]);
        check("nvidia.com/gpu", "elsewhere", later, ["nobody"; 3]);
    }
}

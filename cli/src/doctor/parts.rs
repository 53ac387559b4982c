//! Which pod is which program, by the names of images and commands.

use k8s_openapi::api::core::v1::Container;

use crate::world::PodFacts;

fn containers(pod: &PodFacts) -> impl Iterator<Item = &Container> {
    pod.spec().init_containers.iter().flatten().chain(&pod.spec().containers)
}

fn runs(pod: &PodFacts, name: &str) -> bool {
    containers(pod).any(|container| {
        let image = container.image.as_deref().unwrap_or_default();
        let command = container.command.iter().flatten().chain(container.args.iter().flatten()).next();
        // The image's name without registry, tag and digest; or the program itself.
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let image = last(image.split('@').next().unwrap_or_default());
        image.split(':').next() == Some(name) || command.is_some_and(|command| last(command) == name)
    })
}

/// NVIDIA's device plugin: both would register the same resource names.
pub fn is_nvidias_plugin(pod: &PodFacts) -> bool {
    runs(pod, "k8s-device-plugin") || runs(pod, "nvidia-device-plugin")
}

/// Stowage's device plugin.
pub fn is_our_plugin(pod: &PodFacts) -> bool {
    runs(pod, "stowage-device-plugin")
}

/// Stowage's scheduler extender.
pub fn is_our_extender(pod: &PodFacts) -> bool {
    runs(pod, "stowage-scheduler-extender")
}

/// Any program of Stowage.
pub fn is_ours(pod: &PodFacts) -> bool {
    is_our_plugin(pod) || is_our_extender(pod)
}

/// Containers that set an environment variable, with its value.
pub fn env<'a>(pod: &'a PodFacts, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    containers(pod).flat_map(move |container| {
        let set = container.env.iter().flatten().filter(move |env| env.name == name);
        set.map(|env| (container.name.as_str(), env.value.as_deref().unwrap_or_default()))
    })
}

/// Containers that run privileged.
pub fn privileged(pod: &PodFacts) -> impl Iterator<Item = &str> {
    let is = |container: &&Container| {
        container.security_context.as_ref().and_then(|context| context.privileged).unwrap_or(false)
    };
    containers(pod).filter(is).map(|container| container.name.as_str())
}

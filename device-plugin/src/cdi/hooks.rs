//! Hooks: programs of NVIDIA's container toolkit that put a container's libraries in order.
//!
//! None is ours. Where the toolkit is not there, libraries are mounted under every name that programs look for, which
//! serves all images whose loader searches the folder of the driver's libraries.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::spec::Hook;

/// The hooks that can be turned off by name; `all` of them at once.
pub const NAMES: [&str; 7] = [
    "all",
    "update-application-profile",
    "chmod",
    "create-symlinks",
    "disable-device-node-modification",
    "enable-cuda-compat",
    "update-ldcache",
];

/// The hooks of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// The program on the host; `None` where there is none.
    pub program: Option<PathBuf>,
    /// Those that are not wanted.
    pub disabled: BTreeSet<String>,
}

impl Hooks {
    /// Whether a hook can be had.
    pub fn has(&self, name: &str) -> bool {
        self.program.is_some() && !self.disabled.contains(name) && !self.disabled.contains("all")
    }

    /// A hook, if it can be had.
    pub fn make(&self, name: &str, args: impl IntoIterator<Item = String>) -> Option<Hook> {
        let program = self.program.as_ref().filter(|_| self.has(name))?;
        let own_name = program.file_name()?.to_str()?;
        // nvidia-cdi-hook is nothing but hooks; nvidia-ctk has them below a word of their own.
        let begin = if own_name == "nvidia-ctk" { &[own_name, "hook", name][..] } else { &[own_name, name] };
        Some(Hook {
            hook_name: "createContainer",
            path: program.display().to_string(),
            args: begin.iter().map(|arg| (*arg).to_owned()).chain(args).collect(),
            env: vec!["NVIDIA_CTK_DEBUG=false".to_owned()],
        })
    }

    /// The hook that makes links, `(target, link)`; none where there are no links.
    pub fn links(&self, links: impl IntoIterator<Item = (String, String)>) -> Option<Hook> {
        let mut args: Vec<String> = Vec::new();
        for (target, link) in links {
            let link = format!("{target}::{link}");
            if !args.contains(&link) {
                args.extend(["--link".to_owned(), link]);
            }
        }
        if args.is_empty() { None } else { self.make("create-symlinks", args) }
    }
}

//! Whose pods Stowage places.
//!
//! A Stowage with a kube-scheduler of its own has one name. Behind a Service the extender belongs to the cluster's
//! kube-scheduler, and is told the name of each of its profiles. Who asks here may not be allowed to read how it was told,
//! so it is said once more, by a flag of the same name.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use stowage_shared::contract::SCHEDULER_NAME;

/// The schedulers that ask Stowage.
#[derive(Args, Debug, Clone)]
pub struct Schedulers {
    /// Whose pods Stowage places: what its extender was given as --scheduler-names, with commas between.
    #[arg(
        long = "scheduler-names",
        global = true,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = SCHEDULER_NAME,
        value_parser = NonEmptyStringValueParser::new(),
    )]
    names: Vec<String>,
}

impl Default for Schedulers {
    fn default() -> Self {
        Self { names: vec![SCHEDULER_NAME.to_owned()] }
    }
}

impl Schedulers {
    /// Whether pods that name this scheduler are Stowage's to place.
    pub fn serve(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// What a pod names to be placed by Stowage.
    pub fn name(&self) -> &str {
        self.names.first().map_or(SCHEDULER_NAME, String::as_str)
    }
}

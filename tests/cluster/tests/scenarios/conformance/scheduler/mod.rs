//! Soon.
use anyhow::Result;
use stowage_cluster_tests::Cluster;
use super::Steps;
pub(super) async fn stand_in(_: &Cluster) -> Result<Steps> { Ok(vec![]) }
pub(super) async fn real(_: &Cluster) -> Result<Steps> { Ok(vec![]) }

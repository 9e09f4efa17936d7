//! What goes on beside the traffic, on the control thread: names are resolved, endpoints checked, compared and weighed, and the load of
//! the instance is measured.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::load;
use crate::config::SidecarBootstrap;
use crate::proxy::cluster::{Clusters, health, outlier, reported, resolve};
use crate::proxy::data_plane::DataPlane;

/// All of that, until what this returns is dropped.
pub fn start(plane: &DataPlane, bootstrap: &SidecarBootstrap) -> JoinSet<()> {
    let clusters = || plane.clusters().clone();
    let mut loops = JoinSet::new();
    loops.spawn(resolve_names(clusters()));
    loops.spawn(health::prober::run(clusters(), plane.client_tls().clone()));
    loops.spawn(outlier::run(clusters()));
    loops.spawn(reported::run(clusters()));
    if !bootstrap.apps.is_empty() {
        let (load, lanes) = (plane.load().clone(), plane.lanes().clone());
        loops.spawn(load::run(load, lanes, bootstrap.load.clone()));
    }
    loops
}

async fn resolve_names(clusters: Arc<Clusters>) {
    match resolve::Resolver::system() {
        Ok(resolver) => resolve::run(clusters, resolver).await,
        Err(error) => tracing::error!(%error, "Host names of endpoints cannot be resolved"),
    }
}

//! Certificates that are renewed on disk while the process serves.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::identity::{Reload, ServerTls};

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Reads renewed certificates; never ends.
pub async fn look_after(tls: Option<Arc<ServerTls>>) {
    let Some(tls) = tls else {
        return std::future::pending().await;
    };
    let mut tick = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tick.tick().await;
        match tls.reload_if_changed() {
            Reload::Unchanged => {}
            Reload::Reloaded => info!("The certificate was renewed"),
            Reload::Kept(error) => {
                warn!(%error, "The new certificate cannot be used; the old one stays")
            }
        }
    }
}

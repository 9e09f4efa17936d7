//! The registry through its front door: the HTTP API on real sockets, and the process as an operator runs it.

mod api;
mod case_study;
mod crash;
mod documents;
mod instances;
mod tasks;
mod watch;

use std::time::Duration;

use pillion::api::{Client, ClientOptions, InstancePort, Registration, WatchFrame, WatchStream};
use pillion::app::registry::RegistryProcess;
use pillion::config::RegistryBootstrap;
use tokio::sync::oneshot;

/// Nothing here takes long; this only ends a test that hangs.
pub const HANG: Duration = Duration::from_secs(60);

/// A registry on a free port with its own folder.
pub struct Harness {
    pub registry: std::sync::Arc<pillion::registry::Registry>,
    pub url: String,
    pub client: Client,
    stop: Option<oneshot::Sender<()>>,
    folder: tempfile::TempDir,
}

impl Harness {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "").await
    }

    /// `more` is added to registry.yaml.
    pub async fn start_in(folder: tempfile::TempDir, more: &str) -> Self {
        let file = folder.path().join("registry.yaml");
        std::fs::write(&file, format!("address: 127.0.0.1:0\ndata: data\n{more}")).unwrap();
        let bootstrap = RegistryBootstrap::read(Some(&file), []).unwrap();
        let process = RegistryProcess::open(&bootstrap).await.unwrap();
        let url = format!("http://{}", process.address());
        let registry = process.registry().clone();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(process.run(async {
            let _ = stopped.await;
        }));
        let client = Client::new(&ClientOptions::new(&url)).unwrap();
        Self {
            registry,
            url,
            client,
            stop: Some(stop),
            folder,
        }
    }

    /// Stops it and gives its folder for another start.
    pub async fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        drop(self.client);
        drop(self.registry);
        let lock = self.folder.path().join("data/registry.redb");
        // The file is free once the store has closed.
        let closed = async {
            while pillion::store::embedded::Embedded::open(&pillion::store::embedded::Options::new(
                &lock,
            ))
            .is_err()
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(HANG, closed)
            .await
            .expect("the store closes");
        self.folder
    }

    pub async fn apply(&self, text: &str) -> u64 {
        self.registry
            .apply(text, &Default::default())
            .await
            .unwrap()
            .revision
    }
}

pub fn instance(service: &str, address: &str) -> Registration {
    let port = InstancePort {
        address: address.to_owned(),
        port: Some(80),
        protocol: None,
    };
    Registration::new(service, vec![port])
}

pub fn service(name: &str) -> String {
    format!("kind: Service\nname: {name}\nports: [{{port: 80}}]\n")
}

pub async fn next(watch: &mut WatchStream) -> WatchFrame {
    tokio::time::timeout(HANG, watch.next())
        .await
        .expect("a frame")
        .expect("an open watch")
}

/// Reads up to `synced` and gives everything before it.
pub async fn listing(watch: &mut WatchStream) -> (Vec<WatchFrame>, u64) {
    let mut frames = Vec::new();
    loop {
        match next(watch).await {
            WatchFrame::Synced { revision } => return (frames, revision),
            frame => frames.push(frame),
        }
    }
}

//! The demo's processes: this binary again and again, each with a bootstrap file in a folder that is removed afterwards.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::admin;

/// How long the fleet may take to be ready, and a document to be in effect.
const START: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("cannot start {what}: {error}")]
    Spawn { what: String, error: io::Error },
    #[error("{what} was not ready in {START:?}; its log: {log}")]
    NotReady { what: String, log: String },
    #[error("the registry refused the document: {0}")]
    Refused(String),
    #[error("the demo's folder: {0}")]
    Folder(#[from] io::Error),
}

/// One instance of the echo service: an application and the sidecar beside it.
pub struct Instance {
    pub name: String,
    pub app: SocketAddr,
    pub sidecar: SocketAddr,
    processes: Vec<Child>,
}

pub struct Fleet {
    folder: PathBuf,
    binary: PathBuf,
    registry_address: SocketAddr,
    registry: Option<Child>,
    instances: Vec<Instance>,
    client: Option<Child>,
    client_proxy: SocketAddr,
}

impl Fleet {
    pub async fn start() -> Result<Self, FleetError> {
        let folder = std::env::temp_dir().join(format!("pillion-demo-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let mut fleet = Self {
            binary: std::env::current_exe()?,
            folder,
            registry_address: free_address()?,
            registry: None,
            instances: Vec::new(),
            client: None,
            client_proxy: free_address()?,
        };
        fleet.start_registry().await?;
        for number in 1..=3 {
            let version = if number == 3 { "v2" } else { "v1" };
            let instance = fleet.start_instance(number, version).await?;
            fleet.instances.push(instance);
        }
        fleet.start_client().await?;
        Ok(fleet)
    }

    pub fn registry_url(&self) -> String {
        format!("http://{}", self.registry_address)
    }

    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// What the client uses as its HTTP proxy.
    pub fn client_proxy(&self) -> SocketAddr {
        self.client_proxy
    }

    /// Puts documents into the registry, and waits until every sidecar has them in effect.
    pub async fn apply(&self, documents: &str) -> Result<(), FleetError> {
        let path = self.folder.join("canary.yaml");
        fs::write(&path, documents)?;
        let output = Command::new(&self.binary)
            .args([
                "config",
                "apply",
                "--wait",
                "--registry",
                &self.registry_url(),
            ])
            .arg(&path)
            .output()
            .await?;
        if output.status.success() {
            return Ok(());
        }
        Err(FleetError::Refused(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ))
    }

    /// SIGKILL for the application and its sidecar.
    pub async fn kill(&mut self, name: &str) {
        for instance in self
            .instances
            .iter_mut()
            .filter(|instance| instance.name == name)
        {
            for mut process in instance.processes.drain(..) {
                // It may have ended by itself, which comes to the same.
                let _ = process.kill().await;
            }
        }
    }

    pub async fn stop_registry(&mut self) {
        if let Some(mut registry) = self.registry.take() {
            let _ = registry.kill().await;
        }
    }

    pub async fn stop(mut self) {
        let instances = self
            .instances
            .iter_mut()
            .flat_map(|instance| instance.processes.drain(..));
        let all: Vec<Child> = instances
            .chain(self.client.take())
            .chain(self.registry.take())
            .collect();
        for mut process in all {
            let _ = process.kill().await;
        }
    }

    async fn start_registry(&mut self) -> Result<(), FleetError> {
        let data = self.folder.join("registry");
        let arguments = [
            "registry".into(),
            "--address".into(),
            self.registry_address.to_string(),
            "--data".into(),
            data.display().to_string(),
        ];
        self.registry = Some(self.spawn("registry", &arguments)?);
        self.until("registry", async || {
            tokio::net::TcpStream::connect(self.registry_address)
                .await
                .is_ok()
        })
        .await
    }

    async fn start_instance(&self, number: usize, version: &str) -> Result<Instance, FleetError> {
        let name = format!("echo-{number}");
        let (app, sidecar, admin) = (free_address()?, free_address()?, free_address()?);
        let echo = [
            "demo".into(),
            "--echo".into(),
            app.to_string(),
            "--name".into(),
            name.clone(),
        ];
        let application = self.spawn(&name, &echo)?;
        let bootstrap = format!(
            "instance: {name}\nservice: echo\n\
             apps: [{{port: 80, app: '{app}', listen: '{sidecar}', protocol: http}}]\n\
             labels: {{version: {version}}}\noutbound: {{address: '{}'}}\ninbound: {{address: '{}'}}\n{}",
            free_address()?,
            free_address()?,
            self.common(admin),
        );
        let proxy = self
            .start_proxy(&format!("{name}-sidecar"), &bootstrap, admin)
            .await?;
        Ok(Instance {
            name,
            app,
            sidecar,
            processes: vec![application, proxy],
        })
    }

    async fn start_client(&mut self) -> Result<(), FleetError> {
        let admin = free_address()?;
        let bootstrap = format!(
            "instance: client\noutbound: {{address: '{}'}}\ninbound: {{address: '{}'}}\n{}",
            self.client_proxy,
            free_address()?,
            self.common(admin),
        );
        self.client = Some(
            self.start_proxy("client-sidecar", &bootstrap, admin)
                .await?,
        );
        let names: Vec<String> = self
            .instances
            .iter()
            .map(|instance| instance.sidecar.to_string())
            .collect();
        self.until("client-sidecar", async || {
            let page = admin::get(admin, "/clusters").await.unwrap_or_default();
            names.iter().all(|name| page.contains(name.as_str()))
        })
        .await
    }

    /// What all sidecars of the demo have in common.
    fn common(&self, admin: SocketAddr) -> String {
        format!(
            "admin: {{address: '{admin}'}}\nworkers: 1\nlog: {{level: warn}}\nregistry: {{addresses: ['{}']}}\n",
            self.registry_url()
        )
    }

    async fn start_proxy(
        &self,
        name: &str,
        bootstrap: &str,
        admin: SocketAddr,
    ) -> Result<Child, FleetError> {
        let path = self.folder.join(format!("{name}.yaml"));
        fs::write(&path, bootstrap)?;
        let process = self.spawn(
            name,
            &[
                "proxy".into(),
                "--config".into(),
                path.display().to_string(),
            ],
        )?;
        self.until(name, async || {
            admin::probe(admin, "/ready", Duration::from_secs(1))
                .await
                .is_ok()
        })
        .await?;
        Ok(process)
    }

    fn spawn(&self, name: &str, arguments: &[String]) -> Result<Child, FleetError> {
        let failed = |error| FleetError::Spawn {
            what: name.to_owned(),
            error,
        };
        let log = fs::File::create(self.log(name)).map_err(failed)?;
        let output = log.try_clone().map_err(failed)?;
        Command::new(&self.binary)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    async fn until(&self, what: &str, ready: impl AsyncFn() -> bool) -> Result<(), FleetError> {
        let deadline = Instant::now() + START;
        while !ready().await {
            if Instant::now() >= deadline {
                return Err(FleetError::NotReady {
                    what: what.to_owned(),
                    log: tail(&self.log(what)),
                });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // The processes end with their handles; what is left in the folder is of no use without them.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A port that was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

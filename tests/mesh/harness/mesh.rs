use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use hyper::Method;
use tempfile::TempDir;

use super::{Answer, Client, Process, Service, Target, eventually, free_address};

/// A folder with the files of a mesh; its processes are started from here and end before it.
pub struct Mesh {
    folder: TempDir,
    /// Variables of the processes that are started from now on.
    pub environment: Vec<(&'static str, PathBuf)>,
}

/// A running `pillion registry`.
pub struct Registry {
    pub process: Process,
    pub address: SocketAddr,
}

/// A running `pillion proxy`: a sidecar, or a gateway.
pub struct Sidecar {
    pub process: Process,
    pub name: String,
    pub admin: SocketAddr,
    /// Where its application sends what it asks others.
    pub outbound: SocketAddr,
    /// A `Gateway` that documents declare here is served.
    pub gateway: SocketAddr,
}

impl Mesh {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder for the scenario"),
            environment: Vec::new(),
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file as an editor does: whole, and then in its place at once.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        let draft = self.folder().join(format!(".{name}.draft"));
        std::fs::write(&draft, text).expect("a file in the scenario's folder");
        std::fs::rename(&draft, &path).expect("the same folder");
        path
    }

    pub async fn registry(&self) -> Registry {
        self.registry_at(free_address()).await
    }

    /// One that was killed comes back at its address, with its data.
    pub async fn registry_at(&self, address: SocketAddr) -> Registry {
        let config = self.write(
            "registry.yaml",
            &format!("address: \"{address}\"\ndata: registry-data\n"),
        );
        let mut registry = Registry {
            process: self.pillion("registry", "registry", &config),
            address,
        };
        eventually("the registry answers", async || {
            registry.process.expect_running();
            registry.ask(Method::GET, "/v1/documents", "").await.ok()
        })
        .await;
        registry
    }

    /// A gateway that takes its documents from the file `mesh.yaml`, which `documents` writes for the address it is given.
    pub async fn gateway(&self, documents: impl FnOnce(SocketAddr) -> String) -> Sidecar {
        self.gateway_with("", documents).await
    }

    /// The same with more in its bootstrap.
    pub async fn gateway_with(
        &self,
        bootstrap: &str,
        documents: impl FnOnce(SocketAddr) -> String,
    ) -> Sidecar {
        self.gateway_of("", bootstrap, documents).await
    }

    /// The same, with a file of the mesh's folder that holds the token of its administrator.
    pub async fn gateway_with_token(
        &self,
        file: &str,
        bootstrap: &str,
        documents: impl FnOnce(SocketAddr) -> String,
    ) -> Sidecar {
        let admin = format!(", token_file: {file}");
        self.gateway_of(&admin, bootstrap, documents).await
    }

    async fn gateway_of(
        &self,
        of_admin: &str,
        bootstrap: &str,
        documents: impl FnOnce(SocketAddr) -> String,
    ) -> Sidecar {
        let gateway = free_address();
        self.write("mesh.yaml", &documents(gateway));
        let bootstrap = format!("mesh: mesh.yaml\n{bootstrap}");
        self.proxy_with("gateway", gateway, of_admin, &bootstrap)
            .await
    }

    /// The sidecar of an instance of `service`, registered in the registry.
    pub async fn sidecar(
        &self,
        name: &str,
        service: &str,
        app: &Service,
        registry: SocketAddr,
    ) -> Sidecar {
        let listen = free_address();
        let extra = format!(
            "instance: {name}\nregistry: {{addresses: [\"http://{registry}\"]}}\nsnapshot: {{path: {name}.snapshot}}\n\
             handover: {{path: {name}.sock}}\n\
             apps: [{{service: {service}, port: 80, app: \"{}\", protocol: http, listen: \"{listen}\"}}]\n",
            app.address
        );
        self.proxy(name, free_address(), &extra).await
    }

    /// The sidecar of something that only calls others.
    pub async fn caller(&self, name: &str, registry: SocketAddr) -> Sidecar {
        let extra = format!(
            "registry: {{addresses: [\"http://{registry}\"]}}\nsnapshot: {{path: {name}.snapshot}}\n\
             handover: {{path: {name}.sock}}\n"
        );
        self.proxy(name, free_address(), &extra).await
    }

    async fn proxy(&self, name: &str, gateway: SocketAddr, extra: &str) -> Sidecar {
        self.proxy_with(name, gateway, "", extra).await
    }

    /// `of_admin` is what the admin listener has beside its address.
    async fn proxy_with(
        &self,
        name: &str,
        gateway: SocketAddr,
        of_admin: &str,
        extra: &str,
    ) -> Sidecar {
        let (admin, outbound, inbound) = (free_address(), free_address(), free_address());
        let text = format!(
            "admin: {{address: \"{admin}\"{of_admin}}}\noutbound: {{address: \"{outbound}\"}}\ninbound: {{address: \"{inbound}\"}}\n{extra}"
        );
        let config = self.write(&format!("{name}.yaml"), &text);
        let process = self.pillion(name, "proxy", &config);
        let mut sidecar = Sidecar {
            process,
            name: name.to_owned(),
            admin,
            outbound,
            gateway,
        };
        sidecar.becomes_ready().await;
        sidecar
    }

    /// The same sidecar as before, after its process has ended.
    pub async fn start_again(&self, sidecar: &mut Sidecar) {
        sidecar.process = self.spawn_again(sidecar);
        sidecar.becomes_ready().await;
    }

    /// Another process of the same sidecar takes over, and the one before ends.
    pub async fn replace(&self, sidecar: &mut Sidecar) {
        let next = self.spawn_again(sidecar);
        let mut before = std::mem::replace(&mut sidecar.process, next);
        let status = before.exit_status().await;
        assert!(status.success(), "{status}: {}", before.output());
        sidecar.becomes_ready().await;
    }

    /// Another process with the same bootstrap.
    pub fn spawn_again(&self, sidecar: &Sidecar) -> Process {
        let config = self.folder().join(format!("{}.yaml", sidecar.name));
        self.pillion(&sidecar.name, "proxy", &config)
    }

    fn pillion(&self, name: &str, subcommand: &str, config: &Path) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillion"));
        command
            .arg(subcommand)
            .arg("--config")
            .arg(config)
            .envs(self.environment.iter().cloned())
            .current_dir(self.folder());
        Process::spawn(name, &mut command, self.folder())
    }
}

impl Registry {
    pub async fn ask(&self, method: Method, path: &str, body: &str) -> Result<Answer, String> {
        Client::new(Target::direct(self.address, "registry"))
            .send(method, path, body)
            .await
    }

    /// Applies documents; returns the revision.
    pub async fn apply(&self, documents: &str) -> u64 {
        let answer = self
            .ask(Method::POST, "/v1/documents", documents)
            .await
            .expect("the registry answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let applied: pillion::api::Applied =
            serde_json::from_str(&answer.body).expect("what was applied");
        applied.revision
    }
}

impl Sidecar {
    /// Requests to a service, as its application would send them with `http_proxy` set.
    pub fn target(&self, service: &str) -> Target {
        Target::through(self.outbound, service)
    }

    pub async fn admin(&self, path: &str) -> Result<Answer, String> {
        Client::new(Target::direct(self.admin, &self.admin.to_string()))
            .get(path)
            .await
    }

    async fn becomes_ready(&mut self) {
        eventually("the proxy is ready", async || {
            self.process.expect_running();
            self.admin("/ready")
                .await
                .ok()
                .filter(|answer| answer.status == 200)
        })
        .await;
    }

    /// Waits until one request is on its way to an endpoint.
    pub async fn has_one_under_way(&self) {
        eventually("the request is on its way", async || {
            let page = self.admin("/clusters?format=json").await.ok()?;
            page.body.contains("\"in_flight\": 1").then_some(())
        })
        .await;
    }

    /// Waits until its log has this.
    pub async fn says(&self, words: &str) {
        eventually(&format!("{} says {words:?}", self.name), async || {
            self.process.output().contains(words).then_some(())
        })
        .await;
    }

    /// Waits until requests to a service are answered by all of these.
    pub async fn reaches(&self, service: &str, names: &[&str]) {
        let mut client = Client::new(self.target(service));
        let mut missing: Vec<_> = names.to_vec();
        eventually(&format!("{} reaches {names:?}", self.name), async || {
            let answer = client
                .get("/")
                .await
                .ok()
                .filter(|answer| answer.status == 200)?;
            missing.retain(|name| *name != answer.body);
            missing.is_empty().then_some(())
        })
        .await;
    }
}

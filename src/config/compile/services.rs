use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::policies::{self, Secured};
use super::references::Unresolved;
use super::secrets::Secrets;
use super::{Part, Placed, parts};
use crate::config::decode::Suggester;
use crate::config::problem::{Finding, Problem, Spot};
use crate::config::spec::{
    Document, EndpointSliceSpec, Kind, KubernetesServiceSpec, ServiceSpec, Spec,
};
use crate::model::{
    Certificate, ClusterKey, Endpoint, Name, Pem, Port, Service, Status, Subset, UpstreamTls,
};

/// A service as it was compiled, and the documents it was compiled from.
pub struct CachedService {
    ours: Option<Arc<Document>>,
    kubernetes: Option<Arc<Document>>,
    slices: Vec<Arc<Document>>,
    secured: Vec<Secured>,
    service: Arc<Service>,
}

/// All services and what their subsets are called.
pub struct Services<'s> {
    pub compiled: HashMap<Name, Arc<Service>>,
    /// Made when the first reference leads nowhere.
    names: OnceCell<Names>,
    suggester: &'s Suggester,
    /// A subset's name, in its service's namespace, to the service.
    subsets: HashMap<Name, Name>,
    /// Of policies for services.
    pub statuses: Vec<Status>,
}

/// The documents of one service: ours, Kubernetes', or both.
#[derive(Default)]
struct Documents<'p> {
    ours: Option<Part<'p, ServiceSpec>>,
    kubernetes: Option<Part<'p, KubernetesServiceSpec>>,
    slices: Vec<Part<'p, EndpointSliceSpec>>,
    /// What policies say of its TLS.
    secured: Vec<Secured>,
}

pub fn compile<'p, 's>(
    chosen: &[&'p Placed<'p>],
    secrets: &Secrets<'p>,
    suggester: &'s Suggester,
    cache: &mut HashMap<Name, CachedService>,
    problems: &mut Vec<Problem>,
) -> Services<'s> {
    let mut documents = by_name(chosen);
    slices(chosen, &mut documents, problems);
    let subsets = subsets(&documents, problems);
    let failovers = failovers(&documents);
    let names = |name: &Name| documents.get(name).map(Documents::port_names);
    let mut policies = policies::policies(chosen, secrets, names, problems);
    let mut compiled = HashMap::with_capacity(documents.len());
    let mut kept = HashMap::with_capacity(documents.len());
    for (name, mut documents) in documents {
        documents.secured = policies.take(&name);
        let cached = match cache.remove(&name) {
            Some(cached) if cached.is_of(&documents) => cached,
            _ => documents.compile(&name),
        };
        compiled.insert(name.clone(), Arc::clone(&cached.service));
        kept.insert(name, cached);
    }
    *cache = kept;
    let services = Services {
        compiled,
        subsets,
        names: OnceCell::new(),
        suggester,
        statuses: policies.statuses,
    };
    for (placed, key, spot) in failovers {
        if let Err(unresolved) = services.failover(key) {
            let finding = Finding::error(spot.clone(), unresolved.message, unresolved.hint);
            problems.push(placed.page.problem(&finding));
        }
    }
    services
}

/// Who is to take over from whom, by name, and where that is written.
fn failovers<'p>(
    documents: &HashMap<Name, Documents<'p>>,
) -> Vec<(&'p Placed<'p>, &'p ClusterKey, &'p Spot)> {
    let ours = documents.values().filter_map(|both| both.ours.as_ref());
    let failover = |part: &Part<'p, ServiceSpec>| {
        let key = part.spec.service.failover.as_ref()?;
        Some((part.placed, key, part.spec.failover_spot.as_ref()?))
    };
    ours.filter_map(failover).collect()
}

fn by_name<'p>(chosen: &[&'p Placed<'p>]) -> HashMap<Name, Documents<'p>> {
    let mut documents: HashMap<Name, Documents<'p>> = HashMap::new();
    let ours = parts(chosen, Kind::Service, |spec| match spec {
        Spec::Service(spec) => Some(spec),
        _ => None,
    });
    for part in ours {
        let name = part.name().clone();
        documents.entry(name).or_default().ours = Some(part);
    }
    let kubernetes = parts(chosen, Kind::KubernetesService, |spec| match spec {
        Spec::KubernetesService(spec) => Some(spec),
        _ => None,
    });
    for part in kubernetes {
        let name = part.name().clone();
        documents.entry(name).or_default().kubernetes = Some(part);
    }
    documents
}

/// The label by which Kubernetes says whose endpoints a slice has.
const OF_SERVICE: &str = "kubernetes.io/service-name";

fn slices<'p>(
    chosen: &[&'p Placed<'p>],
    documents: &mut HashMap<Name, Documents<'p>>,
    problems: &mut Vec<Problem>,
) {
    let slices = parts(chosen, Kind::EndpointSlice, |spec| match spec {
        Spec::EndpointSlice(spec) => Some(spec),
        _ => None,
    });
    for part in slices {
        let service = part.head.labels.get(OF_SERVICE).map(|service| Name {
            namespace: Arc::clone(&part.name().namespace),
            name: Arc::clone(service),
        });
        let owner = service
            .as_ref()
            .and_then(|service| documents.get_mut(service));
        if let Some(owner) = owner {
            owner.slices.push(part);
            continue;
        }
        let message = match service {
            Some(service) => format!("there is no service {service} for these endpoints"),
            None => format!("no label `{OF_SERVICE}` says whose endpoints these are"),
        };
        let hint = "they are not used";
        let finding = Finding::warning(part.head.spot.clone(), message, hint);
        problems.push(part.placed.page.problem(&finding));
    }
}

/// Subsets share the namespace of services, so that a route can name either.
fn subsets(
    documents: &HashMap<Name, Documents<'_>>,
    problems: &mut Vec<Problem>,
) -> HashMap<Name, Name> {
    let mut subsets: HashMap<Name, Name> = HashMap::new();
    let mut ours: Vec<_> = documents
        .values()
        .filter_map(|both| both.ours.as_ref())
        .collect();
    ours.sort_by_key(|part| part.name());
    for part in ours {
        for (subset, spot) in part
            .spec
            .service
            .subsets
            .iter()
            .zip(&part.spec.subset_spots)
        {
            let service = part.name();
            let name = Name {
                namespace: Arc::clone(&service.namespace),
                name: Arc::clone(&subset.name),
            };
            let taken = match subsets.get(&name) {
                Some(other) => Some(format!("a subset of service {other}")),
                None if documents.contains_key(&name) => Some(format!("the service {name}")),
                None => None,
            };
            match taken {
                Some(other) => {
                    problems.push(part.placed.page.problem(&taken_name(spot, subset, &other)))
                }
                None => {
                    subsets.insert(name, service.clone());
                }
            }
        }
    }
    subsets
}

fn taken_name(spot: &Spot, subset: &Subset, other: &str) -> Finding {
    let message = format!("the name `{}` is taken by {other}", subset.name);
    let hint = "subsets and services of a namespace share their names; choose another";
    Finding::error(spot.clone(), message, hint)
}

impl CachedService {
    fn is_of(&self, documents: &Documents<'_>) -> bool {
        let same = |cached: &Option<Arc<Document>>, now: Option<&Placed<'_>>| match (cached, now) {
            (Some(cached), Some(now)) => Arc::ptr_eq(cached, &now.document),
            (None, None) => true,
            _ => false,
        };
        let slices = documents.slices.iter().map(|part| &part.placed.document);
        let same_slices = self.slices.len() == documents.slices.len()
            && self
                .slices
                .iter()
                .zip(slices)
                .all(|(one, other)| Arc::ptr_eq(one, other));
        same_slices
            && self.secured == documents.secured
            && same(&self.ours, documents.ours.as_ref().map(|part| part.placed))
            && same(
                &self.kubernetes,
                documents.kubernetes.as_ref().map(|part| part.placed),
            )
    }
}

impl Documents<'_> {
    fn port_names(&self) -> Vec<Arc<str>> {
        let ours = self.ours.iter().flat_map(|part| &part.spec.service.ports);
        let kubernetes = self.kubernetes.iter().flat_map(|part| &part.spec.ports);
        ours.chain(kubernetes)
            .filter_map(|port| port.name.clone())
            .collect()
    }

    fn compile(&self, name: &Name) -> CachedService {
        let ours = self.ours.as_ref();
        let kubernetes = self.kubernetes.as_ref();
        let written = match ours {
            Some(part) => in_folder(&part.spec.service, part.placed.origin.folder()),
            None => Arc::new(Service::new(name.clone())),
        };
        let service = match kubernetes {
            Some(part) => with_ports(written, &part.spec.ports),
            None => written,
        };
        let service = with_slices(service, &self.slices);
        let service = with_tls(service, &self.secured);
        CachedService {
            ours: ours.map(|part| Arc::clone(&part.placed.document)),
            kubernetes: kubernetes.map(|part| Arc::clone(&part.placed.document)),
            slices: self
                .slices
                .iter()
                .map(|part| Arc::clone(&part.placed.document))
                .collect(),
            secured: self.secured.clone(),
            service,
        }
    }
}

fn with_ports(service: Arc<Service>, kubernetes: &[Port]) -> Arc<Service> {
    let mut service = Arc::unwrap_or_clone(service);
    merge(&mut service.ports, kubernetes);
    Arc::new(service)
}

/// A slice's ports are the service's of the same names; a service without ports takes them all.
fn with_slices(service: Arc<Service>, slices: &[Part<'_, EndpointSliceSpec>]) -> Arc<Service> {
    if slices.is_empty() {
        return service;
    }
    let mut service = Arc::unwrap_or_clone(service);
    let Service {
        ports, endpoints, ..
    } = &mut service;
    for slice in slices {
        for port in &slice.spec.ports {
            let named = ports.iter().filter(|own| own.name == port.name);
            let mut served: Vec<Option<u16>> = named.map(|own| Some(own.port)).collect();
            if ports.is_empty() {
                served.push(None);
            }
            for (host, served) in slice
                .spec
                .hosts
                .iter()
                .flat_map(|host| served.iter().map(move |served| (host, *served)))
            {
                endpoints.push(Endpoint {
                    port: served,
                    zone: host.zone.clone(),
                    ..Endpoint::new(host.at(port.port))
                });
            }
        }
    }
    Arc::new(service)
}

/// What the service's own document says of TLS stays.
fn with_tls(service: Arc<Service>, secured: &[Secured]) -> Arc<Service> {
    if secured.is_empty() || service.tls.is_some() {
        return service;
    }
    let mut service = Arc::unwrap_or_clone(service);
    for Secured { port_name, tls } in secured {
        if port_name.is_none() {
            service.tls = Some(tls.clone());
        }
        let ports = service.ports.iter_mut();
        for port in ports.filter(|port| port_name.is_some() && port.name == *port_name) {
            port.tls = Some(tls.clone());
        }
    }
    Arc::new(service)
}

/// Our ports first; where both name a port, ours says its protocol, if it does.
fn merge(ports: &mut Vec<Port>, kubernetes: &[Port]) {
    for port in kubernetes {
        match ports.iter_mut().find(|ours| ours.port == port.port) {
            Some(ours) => {
                ours.protocol = ours.protocol.or(port.protocol);
                ours.name = ours.name.take().or_else(|| port.name.clone());
            }
            None => ports.push(port.clone()),
        }
    }
}

fn in_folder(service: &Arc<Service>, folder: &Path) -> Arc<Service> {
    if service.tls.is_none() && service.api.is_empty() {
        return Arc::clone(service);
    }
    let tls = service.tls.as_ref().map(|tls| UpstreamTls {
        sni: tls.sni.clone(),
        subjects: tls.subjects.clone(),
        ca: tls.ca.as_ref().map(|ca| pem_in(ca, folder)),
        certificate: tls
            .certificate
            .as_ref()
            .map(|pair| certificate_in(pair, folder)),
    });
    Arc::new(Service {
        tls,
        api: service.api.iter().map(|file| folder.join(file)).collect(),
        ..Service::clone(service)
    })
}

/// Paths as the process opens them: a relative one starts from the folder of the file it is written in.
pub fn certificate_in(certificate: &Certificate, folder: &Path) -> Certificate {
    Certificate {
        chain: pem_in(&certificate.chain, folder),
        key: pem_in(&certificate.key, folder),
    }
}

fn pem_in(pem: &Pem, folder: &Path) -> Pem {
    match pem {
        Pem::File(path) => Pem::File(folder.join(path)),
        Pem::Text { .. } => pem.clone(),
    }
}

impl Services<'_> {
    /// What a reference means: a service, or a subset of one; the port must be one of the service's, if it lists any.
    pub fn resolve(&self, name: &Name, port: Option<u16>) -> Result<ClusterKey, Unresolved> {
        let (service, subset) = match (self.compiled.get(name), self.subsets.get(name)) {
            (Some(service), _) => (service, None),
            (None, Some(of)) => (&self.compiled[of], Some(Arc::clone(&name.name))),
            (None, None) => return Err(self.unknown(name)),
        };
        if let Some(port) = port
            && !service.ports.is_empty()
            && service.ports.iter().all(|known| known.port != port)
        {
            let ports: Vec<String> = service.ports.iter().map(|p| p.port.to_string()).collect();
            return Err(Unresolved::new(
                "BackendNotFound",
                format!("service {} has no port {port}", service.name),
                format!("it has {}", ports.join(", ")),
            ));
        }
        let only = match &service.ports[..] {
            [port] => Some(port.port),
            _ => None,
        };
        Ok(ClusterKey {
            service: service.name.clone(),
            subset,
            port: port.or(only),
        })
    }

    /// Subsets do not take over: their endpoints are those of a service that has to be there itself.
    fn failover(&self, key: &ClusterKey) -> Result<(), Unresolved> {
        if self.subsets.contains_key(&key.service) {
            let message = format!("{} is a subset", key.service);
            let hint = "a service takes over as a whole";
            return Err(Unresolved::new("BackendNotFound", message, hint));
        }
        self.resolve(&key.service, key.port).map(drop)
    }

    fn unknown(&self, name: &Name) -> Unresolved {
        let names = self
            .names
            .get_or_init(|| Names::of(self.compiled.keys().chain(self.subsets.keys())));
        let near = names.by_namespace.get(&name.namespace).and_then(|names| {
            self.suggester
                .closest(&name.name, names.iter().map(|known| &**known))
        });
        let hint = match (near, names.namespace_of.get(&name.name)) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(namespace)) => format!("did you mean `namespace: {namespace}`?"),
            (None, None) => "add a document `kind: Service` of that name".to_owned(),
        };
        let message = format!("there is no service or subset {name}");
        Unresolved::new("BackendNotFound", message, hint)
    }
}

/// What there is to refer to, for suggestions.
#[derive(Default)]
struct Names {
    by_namespace: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// The first namespace that has a name.
    namespace_of: HashMap<Arc<str>, Arc<str>>,
}

impl Names {
    fn of<'n>(all: impl Iterator<Item = &'n Name>) -> Self {
        let mut names = Names::default();
        let mut all: Vec<&Name> = all.collect();
        all.sort();
        for Name { namespace, name } in all {
            let known = names.by_namespace.entry(Arc::clone(namespace)).or_default();
            known.push(Arc::clone(name));
            names
                .namespace_of
                .entry(Arc::clone(name))
                .or_insert_with(|| Arc::clone(namespace));
        }
        names
    }
}

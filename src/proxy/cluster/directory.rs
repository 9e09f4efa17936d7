//! The table of all clusters of a proxy, and what they are made from: documents, what discovery found, and resolved names.
//!
//! The control thread keeps it; the request path does not come here, since routes hold their clusters. The cost of a change is
//! that of the services it touches: a new snapshot touches those whose `Arc` is another one, an endpoint update one.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::health::targets::{TargetChange, Targets};
use super::members::{Member, members};
use super::{Cluster, Instances};
use crate::intercept::OriginalDst;
use crate::model::{
    Address, ClusterKey, Endpoint, EndpointUpdate, Name, Service, Sidecar, Snapshot, is_virtual,
};
use crate::proxy::events::Events;

/// All clusters of a proxy.
#[derive(Debug)]
pub struct Clusters {
    zone: Option<Arc<str>>,
    instances: Arc<Instances>,
    events: Events,
    table: Mutex<Table>,
    /// The hosts to resolve have changed.
    hosts_changed: Notify,
    /// The endpoints to check have changed.
    targets_changed: Notify,
}

#[derive(Default, Debug)]
struct Table {
    services: HashMap<Name, Entry>,
    /// Kept where connections come that were made to an instance's address.
    instances: Option<Arc<Instances>>,
    /// Our own outbound listener, which would send everything back to itself.
    outbound: Option<SocketAddr>,
    /// How many of them have a document.
    documented: usize,
    hosts: HashMap<Arc<str>, Host>,
    /// What the resolver has not been told yet.
    host_changes: Vec<HostChange>,
    /// What the prober has not been told yet.
    target_changes: Vec<TargetChange>,
}

/// A service with what is known of it.
#[derive(Debug)]
struct Entry {
    service: Arc<Service>,
    /// It has a document; without one, everything about it is a default.
    documented: bool,
    discovered: Vec<Endpoint>,
    clusters: Vec<Arc<Cluster>>,
    /// The host names among its endpoints.
    hosts: HashSet<Arc<str>>,
    /// Its endpoints whose health is checked.
    targets: Targets,
}

/// A host name among the endpoints.
#[derive(Default, Debug)]
struct Host {
    /// The last good answer.
    addresses: Vec<IpAddr>,
    services: HashSet<Name>,
}

/// A name to begin or to end resolving.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum HostChange {
    Wanted(Arc<str>),
    Unwanted(Arc<str>),
}

impl Clusters {
    /// Empty. `zone` is the proxy's own.
    pub fn new(zone: Option<Arc<str>>) -> Arc<Self> {
        Self::with_table(zone, Table::default())
    }

    /// Those of a sidecar, which keeps its [`Clusters::instances`] and never takes its own outbound listener for one of them.
    pub fn of_sidecar(sidecar: &Sidecar) -> Arc<Self> {
        let zone = sidecar.zone.clone();
        let table = Table {
            instances: Some(Arc::default()),
            outbound: sidecar.outbound,
            ..Table::default()
        };
        Self::with_table(zone, table)
    }

    fn with_table(zone: Option<Arc<str>>, table: Table) -> Arc<Self> {
        Arc::new(Self {
            zone,
            instances: table.instances.clone().unwrap_or_default(),
            events: Events::default(),
            table: Mutex::new(table),
            hosts_changed: Notify::new(),
            targets_changed: Notify::new(),
        })
    }

    /// Whose address is whose; empty where it is not kept.
    pub fn instances(&self) -> &Arc<Instances> {
        &self.instances
    }

    /// What its clusters and their prober have detected.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The cluster of a backend reference. A service that has no document (yet) has every default, and what discovery finds.
    pub fn get_or_create(&self, key: &ClusterKey) -> Arc<Cluster> {
        let mut table = self.table();
        let entry = table.entry(&key.service);
        if let Some(cluster) = entry.clusters.iter().find(|cluster| cluster.key == *key) {
            return cluster.clone();
        }
        let (zone, events) = (self.zone.clone(), self.events.clone());
        let cluster = Cluster::telling(key.clone(), &entry.service, zone, events);
        entry.clusters.push(cluster.clone());
        table.fill(&cluster);
        cluster
    }

    /// Takes the services of a snapshot over. Those that it does not have lose their document, not what discovery knows.
    pub fn apply(&self, snapshot: &Snapshot) {
        let mut table = self.table();
        for (name, service) in &snapshot.services {
            let entry = table.services.get(name);
            if entry.is_none_or(|entry| !Arc::ptr_eq(&entry.service, service)) {
                table.set_service(name, service.clone(), true);
            }
        }
        if table.documented > snapshot.services.len() {
            table.drop_documents(snapshot);
        }
        self.tell(&table);
    }

    /// Takes over what discovery knows of one service.
    pub fn set_endpoints(&self, update: EndpointUpdate) {
        let mut table = self.table();
        table.entry(&update.service).discovered = update.endpoints;
        table.refill(&update.service);
        self.tell(&table);
    }

    /// Forgets clusters that nobody else holds, and services of which nothing is known any more. Call it once the routes of a
    /// new snapshot hold theirs.
    pub fn prune(&self) {
        self.table().services.retain(|_, entry| {
            entry
                .clusters
                .retain(|cluster| Arc::strong_count(cluster) > 1);
            entry.documented || !entry.discovered.is_empty() || !entry.clusters.is_empty()
        });
    }

    /// All clusters there are, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Cluster>> + use<> {
        let table = self.table();
        let entries = table.services.values();
        let mut clusters: Vec<Arc<Cluster>> =
            entries.flat_map(|entry| &entry.clusters).cloned().collect();
        clusters.sort_by(|a, b| a.key.cmp(&b.key));
        clusters.into_iter()
    }

    /// All clusters there are, in any order.
    pub(super) fn all(&self) -> Vec<Arc<Cluster>> {
        let table = self.table();
        let entries = table.services.values();
        entries.flat_map(|entry| &entry.clusters).cloned().collect()
    }

    /// The addresses that a host name stands for from now on.
    pub(super) fn set_addresses(&self, host: &str, addresses: Vec<IpAddr>) {
        let mut table = self.table();
        let Some(entry) = table.hosts.get_mut(host) else {
            return;
        };
        if entry.addresses == addresses {
            return;
        }
        entry.addresses = addresses;
        for service in entry.services.clone() {
            table.refill(&service);
        }
        self.tell(&table);
    }

    /// Ready when there are new names to resolve, or old ones to let go.
    pub(super) async fn host_changes(&self) -> Vec<HostChange> {
        loop {
            let changes = std::mem::take(&mut self.table().host_changes);
            if !changes.is_empty() {
                return changes;
            }
            self.hosts_changed.notified().await;
        }
    }

    /// Ready when there are endpoints to begin or to end checking.
    pub(super) async fn target_changes(&self) -> Vec<TargetChange> {
        loop {
            let changes = std::mem::take(&mut self.table().target_changes);
            if !changes.is_empty() {
                return changes;
            }
            self.targets_changed.notified().await;
        }
    }

    /// The checks of one of this service's endpoints say something else than before; perhaps that it is back.
    pub(super) fn health_changed(
        &self,
        service: &Name,
        address: SocketAddr,
        returned: bool,
        now: Instant,
    ) {
        if let Some(entry) = self.table().services.get(service) {
            for cluster in &entry.clusters {
                cluster.health_changed(address, returned, now);
            }
        }
    }

    /// Tells the resolver and the prober what there is for them.
    fn tell(&self, table: &Table) {
        if !table.host_changes.is_empty() {
            self.hosts_changed.notify_one();
        }
        if !table.target_changes.is_empty() {
            self.targets_changed.notify_one();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn entry(&mut self, name: &Name) -> &mut Entry {
        self.services
            .entry(name.clone())
            .or_insert_with(|| Entry::new(name))
    }

    fn set_service(&mut self, name: &Name, service: Arc<Service>, documented: bool) {
        let entry = self.entry(name);
        entry.service = service.clone();
        let before = std::mem::replace(&mut entry.documented, documented);
        for cluster in &entry.clusters {
            cluster.update_service(&service);
        }
        self.documented = self.documented + usize::from(documented) - usize::from(before);
        self.refill(name);
    }

    /// Takes the documents away from the services that a snapshot does not have.
    fn drop_documents(&mut self, snapshot: &Snapshot) {
        let gone = |(name, entry): (&Name, &Entry)| {
            let gone = entry.documented && !snapshot.services.contains_key(name);
            gone.then(|| name.clone())
        };
        let gone: Vec<Name> = self.services.iter().filter_map(gone).collect();
        for name in &gone {
            self.set_service(name, undocumented(name), false);
        }
    }

    /// Gives a service's clusters their endpoints anew.
    fn refill(&mut self, name: &Name) {
        self.watch_hosts(name);
        self.watch_health(name);
        let Some(entry) = self.services.get(name) else {
            return;
        };
        for cluster in &entry.clusters {
            self.fill(cluster);
        }
        if let Some(instances) = &self.instances {
            let members = self.resolved(entry.endpoints());
            let address = |member: &Member| (member.address, member.endpoint.port);
            let addresses: Vec<_> = members.iter().map(address).collect();
            instances.set(name, &addresses);
        }
    }

    fn fill(&self, cluster: &Arc<Cluster>) {
        let Some(entry) = self.services.get(&cluster.key.service) else {
            return;
        };
        let endpoints = entry.endpoints();
        let endpoints = members(&entry.service, &endpoints, &cluster.key);
        let mut members = self.resolved(endpoints);
        for member in &mut members {
            member.health = entry.targets.health(member.address).cloned();
        }
        cluster.set_members(members);
    }

    /// The addresses of these endpoints: of a name, all that it stands for.
    fn resolved(&self, endpoints: Vec<Endpoint>) -> Vec<Member> {
        let mut members = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            match &endpoint.address {
                Address::Socket(address) => members.push(Member {
                    address: *address,
                    endpoint,
                    health: None,
                }),
                Address::Name { host, port } => {
                    let addresses = self.hosts.get(host).map(|host| &host.addresses[..]);
                    let member = |ip: &IpAddr| Member {
                        address: (*ip, *port).into(),
                        endpoint: endpoint.clone(),
                        health: None,
                    };
                    members.extend(addresses.unwrap_or_default().iter().map(member));
                }
            }
        }
        members.retain(|member| !self.leads_back(member.address));
        members
    }

    /// Whether connecting there would come back here: to our own listener, or to an address that we alone give a meaning to.
    fn leads_back(&self, address: SocketAddr) -> bool {
        let own = self.outbound.as_slice();
        let leads_back = is_virtual(address.ip()) || OriginalDst(address).is_own(own);
        if leads_back {
            tracing::warn!(%address, "Endpoint not used: connections to it would come back to this proxy");
        }
        leads_back
    }

    /// Notes which hosts this service's endpoints name now, and what changes for the resolver.
    fn watch_hosts(&mut self, name: &Name) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        let host = |endpoint: &Endpoint| match &endpoint.address {
            Address::Name { host, .. } => Some(host.clone()),
            Address::Socket(_) => None,
        };
        let all = entry.service.endpoints.iter().chain(&entry.discovered);
        let hosts: HashSet<Arc<str>> = all.filter_map(host).collect();
        let before = std::mem::replace(&mut entry.hosts, hosts.clone());
        for host in hosts.difference(&before) {
            self.want(host, name);
        }
        for host in before.difference(&hosts) {
            self.let_go(host, name);
        }
    }

    /// Notes who of this service's endpoints is checked now, and what changes for the prober.
    fn watch_health(&mut self, name: &Name) {
        let Some(entry) = self.services.get(name) else {
            return;
        };
        let members = match entry.service.health {
            Some(_) => self.resolved(entry.endpoints()),
            None => Vec::new(),
        };
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        let service = entry.service.clone();
        entry
            .targets
            .follow(&service, &members, &mut self.target_changes);
    }

    fn want(&mut self, host: &Arc<str>, service: &Name) {
        let entry = self.hosts.entry(host.clone()).or_insert_with(|| {
            self.host_changes.push(HostChange::Wanted(host.clone()));
            Host::default()
        });
        entry.services.insert(service.clone());
    }

    fn let_go(&mut self, host: &Arc<str>, service: &Name) {
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        entry.services.remove(service);
        if entry.services.is_empty() {
            self.hosts.remove(host);
            self.host_changes.push(HostChange::Unwanted(host.clone()));
        }
    }
}

impl Entry {
    fn new(name: &Name) -> Self {
        Self {
            service: undocumented(name),
            documented: false,
            discovered: Vec::new(),
            clusters: Vec::new(),
            hosts: HashSet::new(),
            targets: Targets::default(),
        }
    }

    /// What discovery found, then what the document lists: of one address in both, the registry knows the state.
    fn endpoints(&self) -> Vec<Endpoint> {
        let discovered = self.discovered.iter();
        discovered.chain(&self.service.endpoints).cloned().collect()
    }
}

/// A service nobody has described.
fn undocumented(name: &Name) -> Arc<Service> {
    Arc::new(Service::new(name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Policy, Subset};
    use crate::proxy::cluster::testing::{address, endpoint, key, service, with_policy};

    fn snapshot(services: Vec<Service>) -> Snapshot {
        let named = |service: Service| (service.name.clone(), Arc::new(service));
        Snapshot {
            services: services.into_iter().map(named).collect(),
            ..Snapshot::default()
        }
    }

    fn found(endpoints: Vec<Endpoint>) -> EndpointUpdate {
        EndpointUpdate {
            service: key().service,
            endpoints,
        }
    }

    fn ports(cluster: &Cluster) -> Vec<u16> {
        let set = cluster.endpoints();
        set.endpoints.iter().map(|e| e.address.port()).collect()
    }

    fn named(host: &str) -> Endpoint {
        Endpoint {
            address: Address::Name {
                host: host.into(),
                port: 80,
            },
            ..endpoint(1)
        }
    }

    #[test]
    fn an_endpoint_that_leads_back_to_the_sidecar_is_none() {
        let socket = |address: &str| Endpoint {
            address: Address::Socket(address.parse().unwrap()),
            ..endpoint(1)
        };
        let clusters = Clusters::of_sidecar(&Sidecar {
            inbound_mode: Default::default(),
            outbound: Some("127.0.0.1:15001".parse().unwrap()),
            inbound: None,
            intercept: true,
            apps: Vec::new(),
            zone: None,
            namespace: "default".into(),
            passthrough: true,
        });
        let cluster = clusters.get_or_create(&key());
        let back = ["127.0.0.1:15001", "127.0.0.9:15001", "240.1.2.3:80"];
        let others = ["10.0.0.1:15001", "127.0.0.1:80"];
        clusters.set_endpoints(found(back.into_iter().chain(others).map(socket).collect()));
        assert_eq!(ports(&cluster), [15001, 80]);
        for address in back {
            assert_eq!(clusters.instances().find(address.parse().unwrap()), None);
        }
        let owner = clusters.instances().find("127.0.0.1:80".parse().unwrap());
        assert_eq!(owner.map(|owner| owner.service), Some(key().service));
    }

    #[test]
    fn a_cluster_has_the_documents_endpoints_and_the_discovered_ones() {
        let clusters = Clusters::new(None);
        let cluster = clusters.get_or_create(&key());
        clusters.apply(&snapshot(vec![Service {
            endpoints: vec![endpoint(1), endpoint(2)],
            ..service()
        }]));
        clusters.set_endpoints(found(vec![endpoint(2), endpoint(3)]));
        assert_eq!(ports(&cluster), [2, 3, 1]);
        clusters.set_endpoints(found(Vec::new()));
        assert_eq!(ports(&cluster), [1, 2]);
    }

    #[test]
    fn clusters_made_later_know_what_came_before() {
        let clusters = Clusters::new(None);
        clusters.set_endpoints(found(vec![endpoint(3)]));
        assert_eq!(ports(&clusters.get_or_create(&key())), [3]);
    }

    #[test]
    fn a_changed_policy_keeps_the_cluster_and_its_endpoints() {
        let clusters = Clusters::new(None);
        let with = |policy| Service {
            endpoints: vec![endpoint(1)],
            ..with_policy(policy)
        };
        clusters.apply(&snapshot(vec![with(Policy::RoundRobin)]));
        let cluster = clusters.get_or_create(&key());
        let before = cluster.endpoints();
        clusters.apply(&snapshot(vec![with(Policy::LeastRequest)]));
        assert_eq!(cluster.service().balance.policy, Policy::LeastRequest);
        assert!(Arc::ptr_eq(&cluster.endpoints(), &before));
        assert!(Arc::ptr_eq(&clusters.get_or_create(&key()), &cluster));
    }

    #[test]
    fn a_removed_document_leaves_what_discovery_knows() {
        let clusters = Clusters::new(None);
        clusters.apply(&snapshot(vec![Service {
            endpoints: vec![endpoint(1)],
            ..service()
        }]));
        clusters.set_endpoints(found(vec![endpoint(2)]));
        let cluster = clusters.get_or_create(&key());
        clusters.apply(&snapshot(Vec::new()));
        assert_eq!(ports(&cluster), [2]);
    }

    #[test]
    fn subsets_of_a_service_are_clusters_of_their_own() {
        let clusters = Clusters::new(None);
        let labels = std::collections::BTreeMap::from([("version".into(), "v2".into())]);
        let second = Endpoint {
            labels: Arc::new(labels.clone()),
            ..endpoint(2)
        };
        clusters.apply(&snapshot(vec![Service {
            endpoints: vec![endpoint(1), second],
            subsets: vec![Subset {
                name: "v2".into(),
                labels,
            }],
            ..service()
        }]));
        let subset = ClusterKey {
            subset: Some("v2".into()),
            ..key()
        };
        assert_eq!(ports(&clusters.get_or_create(&subset)), [2]);
        assert_eq!(clusters.iter().count(), 1);
    }

    #[test]
    fn pruning_forgets_clusters_that_no_route_holds() {
        let clusters = Clusters::new(None);
        let held = clusters.get_or_create(&key());
        let port = ClusterKey {
            port: Some(80),
            ..key()
        };
        clusters.get_or_create(&port);
        clusters.prune();
        let left: Vec<ClusterKey> = clusters.iter().map(|cluster| cluster.key.clone()).collect();
        assert_eq!(left, std::slice::from_ref(&held.key));
    }

    #[tokio::test]
    async fn a_name_becomes_as_many_endpoints_as_it_has_addresses() {
        let clusters = Clusters::new(None);
        let cluster = clusters.get_or_create(&key());
        clusters.set_endpoints(found(vec![named("reviews.test"), endpoint(9)]));
        let changes = clusters.host_changes().await;
        assert_eq!(changes, [HostChange::Wanted("reviews.test".into())]);
        assert_eq!(ports(&cluster), [9]);
        let ips = [10, 20].map(|last| IpAddr::from([192, 0, 2, last]));
        clusters.set_addresses("reviews.test", ips.to_vec());
        let set = cluster.endpoints();
        let addresses: Vec<_> = set.endpoints.iter().map(|e| e.address).collect();
        assert_eq!(
            addresses,
            [(ips[0], 80).into(), (ips[1], 80).into(), address(9)]
        );
        assert_eq!(
            set.endpoints[0].host().map(|host| &host[..]),
            Some("reviews.test")
        );
        clusters.set_endpoints(found(Vec::new()));
        let changes = clusters.host_changes().await;
        assert_eq!(changes, [HostChange::Unwanted("reviews.test".into())]);
    }
}

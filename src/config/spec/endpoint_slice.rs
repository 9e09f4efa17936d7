//! Kubernetes' `EndpointSlice`: some endpoints of the service that its label names.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::model::Address;

#[derive(Debug)]
pub struct EndpointSliceSpec {
    /// Those that are ready.
    pub hosts: Vec<SliceHost>,
    pub ports: Vec<SlicePort>,
}

#[derive(Debug)]
pub struct SliceHost {
    host: Host,
    pub zone: Option<Arc<str>>,
}

/// A port of the pods, which the service's port of the same name stands for.
#[derive(Debug)]
pub struct SlicePort {
    pub name: Option<Arc<str>>,
    pub port: u16,
}

#[derive(Debug)]
enum Host {
    Ip(IpAddr),
    Name(Arc<str>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AddressType {
    Ipv4,
    Ipv6,
    Name,
}

impl SliceHost {
    pub fn at(&self, port: u16) -> Address {
        match &self.host {
            Host::Ip(ip) => Address::Socket((*ip, port).into()),
            Host::Name(host) => Address::Name {
                host: Arc::clone(host),
                port,
            },
        }
    }
}

pub(super) fn read(fields: &mut Fields<'_, '_>) -> EndpointSliceSpec {
    let kind = fields.required("addressType", |cursor| {
        cursor.choice(&[
            ("IPv4", AddressType::Ipv4),
            ("IPv6", AddressType::Ipv6),
            ("FQDN", AddressType::Name),
        ])
    });
    let hosts = match kind {
        Some(kind) => fields.list("endpoints", |cursor| {
            cursor.fields(|fields| host(fields, kind))
        }),
        None => {
            fields.ignore(&["endpoints"]);
            Vec::new()
        }
    };
    let ports = fields.list("ports", |cursor| cursor.fields(port));
    EndpointSliceSpec {
        hosts: hosts.into_iter().flatten().collect(),
        ports: ports.into_iter().flatten().collect(),
    }
}

/// Some(None) is not ready.
fn host(fields: &mut Fields<'_, '_>, kind: AddressType) -> Option<Option<SliceHost>> {
    fields.ignore(&[
        "hostname",
        "nodeName",
        "targetRef",
        "deprecatedTopology",
        "hints",
    ]);
    let addresses = fields.required("addresses", |c| c.list(|cursor| address(cursor, kind)));
    let zone = fields.optional("zone", |c| c.owned_text());
    let ready = fields.optional("conditions", |cursor| {
        cursor.fields(|fields| {
            fields.ignore(&["serving", "terminating"]);
            fields.optional("ready", |c| c.boolean())
        })
    });
    // All addresses of an endpoint lead to the same pod.
    let host = addresses?.into_iter().next()?;
    Some(ready.unwrap_or(true).then_some(SliceHost { host, zone }))
}

fn address(cursor: Cursor<'_>, kind: AddressType) -> Option<Host> {
    if kind == AddressType::Name {
        return cursor.precise_hostname().map(Host::Name);
    }
    let ip = cursor.ip_address()?;
    match ip.is_ipv4() == (kind == AddressType::Ipv4) {
        true => Some(Host::Ip(ip)),
        false => cursor.error(
            "this address is not of `addressType`",
            "write a slice for each type",
        ),
    }
}

/// Some(None) is a port that carries no TCP, or none at all.
fn port(fields: &mut Fields<'_, '_>) -> Option<Option<SlicePort>> {
    fields.ignore(&["appProtocol"]);
    let name = fields.optional("name", |c| c.owned_text());
    let port = fields.optional("port", |c| c.port());
    let is_tcp = fields.optional("protocol", |cursor| {
        cursor.choice(&[("TCP", true), ("UDP", false), ("SCTP", false)])
    });
    let name = name.filter(|name| !name.is_empty());
    let port = port.map(|port| SlicePort { name, port });
    Some(port.filter(|_| is_tcp.unwrap_or(true)))
}

use std::sync::Arc;

use super::filter::{Filters, MirrorSpec, Place, filters};
use super::grpc_match::grpc_match;
use super::route_match::route_match;
use super::session::session_persistence;
use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::config::problem::Spot;
use crate::config::yaml::Value;
use crate::model::{
    Filter, Hedge, HedgeAfter, HostPattern, Retry, RouteKind, RouteMatch, SessionPersistence,
    Timeouts,
};

#[derive(Debug)]
pub struct RouteSpec {
    /// Empty where `parentRefs` is left out.
    pub parents: Vec<ParentRef>,
    pub hostnames: Vec<HostPattern>,
    pub rules: Vec<RuleSpec>,
}

#[derive(Debug)]
pub struct ParentRef {
    pub kind: ParentKind,
    pub namespace: Option<Arc<str>>,
    pub name: Arc<str>,
    pub section: Option<Arc<str>>,
    pub port: Option<u16>,
    pub spot: Spot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParentKind {
    Gateway,
    Service,
}

#[derive(Debug)]
pub struct RuleSpec {
    pub name: Option<Arc<str>>,
    pub matches: Vec<RouteMatch>,
    pub filters: Vec<Filter>,
    pub mirrors: Vec<MirrorSpec>,
    pub backends: Vec<BackendRef>,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
    pub hedge: Option<Hedge>,
    pub session: Option<SessionPersistence>,
}

/// A reference to a service or subset.
#[derive(Debug)]
pub struct BackendRef {
    pub namespace: Option<Arc<str>>,
    pub name: Arc<str>,
    pub port: Option<u16>,
    pub weight: u32,
    pub filters: Vec<Filter>,
    pub mirrors: Vec<MirrorSpec>,
    /// What it refers to in place of a service, such as `Bucket.storage.example.com`.
    pub foreign: Option<Arc<str>>,
    pub spot: Spot,
}

pub(super) fn read(fields: &mut Fields<'_, '_>, kind: RouteKind) -> RouteSpec {
    fields.not_built(&[("useDefaultGateways", "")]);
    let parents = fields.list("parentRefs", |cursor| cursor.fields(parent));
    let hostnames = match kind {
        RouteKind::Tcp => Vec::new(),
        _ => fields.list("hostnames", |c| c.host_pattern()),
    };
    RouteSpec {
        parents,
        hostnames,
        rules: rules(fields, kind),
    }
}

/// As in the standard, a route without `rules` has one rule that matches everything, and no backend.
fn rules(fields: &mut Fields<'_, '_>, kind: RouteKind) -> Vec<RuleSpec> {
    if fields.has("rules") {
        let read = |fields: &mut Fields<'_, '_>| match kind {
            RouteKind::Http => rule(fields, kind, route_match),
            RouteKind::Grpc => rule(fields, kind, grpc_match),
            RouteKind::Tls | RouteKind::Tcp => connection_rule(fields),
        };
        return fields.list("rules", |cursor| cursor.fields(read));
    }
    fields.optional("rules", |_| Some(()));
    fields
        .cursor()
        .warning("a route without rules answers 500", "say `rules`");
    vec![RuleSpec::of_all(None, Vec::new())]
}

impl RuleSpec {
    /// Its backends, then its mirrors, then those of each backend.
    pub fn references(&self) -> impl Iterator<Item = &BackendRef> {
        let own = self.mirrors.iter();
        let of_backends = self.backends.iter().flat_map(|backend| &backend.mirrors);
        let mirrors = own.chain(of_backends).map(|mirror| &mirror.backend);
        self.backends.iter().chain(mirrors)
    }

    /// Everything goes to these backends.
    fn of_all(name: Option<Arc<str>>, backends: Vec<BackendRef>) -> Self {
        Self {
            name,
            matches: vec![RouteMatch::everything()],
            filters: Vec::new(),
            mirrors: Vec::new(),
            backends,
            timeouts: Timeouts::default(),
            retry: None,
            hedge: None,
            session: None,
        }
    }
}

/// Of a `TLSRoute` or `TCPRoute`: the backends share the connections by their weights.
fn connection_rule(fields: &mut Fields<'_, '_>) -> Option<RuleSpec> {
    let name = fields.optional("name", |c| c.name());
    let backends = fields.list("backendRefs", |cursor| {
        cursor.fields(|fields| {
            let reference = service_ref(fields);
            let weight = fields.optional("weight", weight);
            Some(BackendRef {
                weight: weight.unwrap_or(defaults::BACKEND_WEIGHT),
                ..reference?
            })
        })
    });
    if backends.iter().all(|backend| backend.weight == 0) {
        let message = "without a backend that has a weight, connections are reset";
        fields.cursor().warning(message, "say `backendRefs`");
    }
    Some(RuleSpec::of_all(name, backends))
}

fn weight(cursor: Cursor<'_>) -> Option<u32> {
    cursor.number(0..=defaults::WEIGHT_MAX)
}

fn parent(fields: &mut Fields<'_, '_>) -> Option<ParentRef> {
    let kind = fields.optional("kind", |cursor| {
        cursor.choice(&[
            ("Gateway", ParentKind::Gateway),
            ("Service", ParentKind::Service),
        ])
    });
    fields.optional("group", |cursor| {
        cursor.choice(&[
            ("gateway.networking.k8s.io", ()),
            ("", ()),
            ("pillion.dev", ()),
        ])
    });
    let namespace = fields.optional("namespace", |c| c.namespace());
    let named = fields.required("name", |c| Some((c.name()?, c.spot())));
    let section = fields.optional("sectionName", |c| c.name());
    let port = fields.optional("port", |c| c.port());
    let kind = kind.unwrap_or(ParentKind::Gateway);
    if kind == ParentKind::Service && section.is_some() {
        let here = fields.cursor();
        return here.error(
            "a Service has no sections",
            "say `port` instead of `sectionName`",
        );
    }
    let (name, spot) = named?;
    Some(ParentRef {
        kind,
        namespace,
        name,
        section,
        port,
        spot,
    })
}

fn rule(
    fields: &mut Fields<'_, '_>,
    kind: RouteKind,
    one_match: fn(&mut Fields<'_, '_>) -> Option<RouteMatch>,
) -> Option<RuleSpec> {
    let name = fields.optional("name", |c| c.name());
    let mut matches = fields.list("matches", |cursor| cursor.fields(one_match));
    if matches.is_empty() {
        matches.push(RouteMatch::everything());
    }
    let is_none = |list: &Value<'_>| matches!(list, Value::Sequence(items) if items.is_empty());
    let place = match fields.optional("backendRefs", |c| Some(is_none(&c.node.value))) {
        Some(false) => Place::Rule,
        Some(true) | None => Place::RuleAlone,
    };
    let Filters { filters, mirrors } = filters(fields, kind, place, &matches);
    let backends = backends(fields, kind, &matches, &filters);
    let timeouts = fields.optional("timeouts", |cursor| cursor.fields(timeouts));
    let retry = fields.optional("retry", |cursor| {
        cursor.fields(|fields| retry(fields, &matches))
    });
    let hedge = fields.optional("hedge", |cursor| cursor.fields(hedge));
    let session = fields.optional("sessionPersistence", |cursor| {
        cursor.fields(|fields| session_persistence(fields, &matches))
    });
    Some(RuleSpec {
        name,
        matches,
        filters,
        mirrors,
        backends,
        timeouts: timeouts.unwrap_or_default(),
        retry,
        hedge,
        session,
    })
}

/// A rule with a filter that answers needs none.
fn backends(
    fields: &mut Fields<'_, '_>,
    kind: RouteKind,
    matches: &[RouteMatch],
    filters: &[Filter],
) -> Vec<BackendRef> {
    let place = Place::Backend {
        rewritten: filters.iter().any(Filter::rewrites_path),
    };
    let backends = fields.list("backendRefs", |cursor| {
        cursor.fields(|fields| backend(fields, kind, place, matches))
    });
    if filters.iter().any(Filter::answers) {
        return backends;
    }
    if !fields.has("backendRefs") {
        fields.cursor().warning(
            "a rule without backendRefs answers 500",
            "say where requests go",
        );
    } else if !backends.is_empty() && backends.iter().all(|backend| backend.weight == 0) {
        fields
            .cursor()
            .warning("all weights are 0, so this rule answers 500", "");
    }
    backends
}

fn backend(
    fields: &mut Fields<'_, '_>,
    kind: RouteKind,
    place: Place,
    matches: &[RouteMatch],
) -> Option<BackendRef> {
    let reference = service_ref(fields);
    let weight = fields.optional("weight", weight);
    let Filters { filters, mirrors } = filters(fields, kind, place, matches);
    Some(BackendRef {
        weight: weight.unwrap_or(defaults::BACKEND_WEIGHT),
        filters,
        mirrors,
        ..reference?
    })
}

/// `{name, namespace, port}`, with the `kind` and `group` of a Service.
pub(super) fn service_ref(fields: &mut Fields<'_, '_>) -> Option<BackendRef> {
    let kind = fields.optional("kind", |c| c.filled_text().map(Arc::<str>::from));
    let group = fields.optional("group", |c| c.owned_text());
    let namespace = fields.optional("namespace", |c| c.namespace());
    let named = fields.required("name", |cursor| Some((cursor.name()?, cursor.spot())));
    let port = fields.optional("port", |c| c.port());
    let (name, spot) = named?;
    Some(BackendRef {
        namespace,
        name,
        port,
        weight: defaults::BACKEND_WEIGHT,
        filters: Vec::new(),
        mirrors: Vec::new(),
        foreign: foreign(kind.as_deref(), group.as_deref()),
        spot,
    })
}

/// What is no service, as Kubernetes writes kinds with their groups.
fn foreign(kind: Option<&str>, group: Option<&str>) -> Option<Arc<str>> {
    let (kind, group) = (kind.unwrap_or("Service"), group.unwrap_or_default());
    match (kind, group) {
        ("Service", "" | "pillion.dev") => None,
        (kind, "") => Some(kind.into()),
        (kind, group) => Some(format!("{kind}.{group}").into()),
    }
}

/// `0s` switches a timeout off, as in the standard.
fn timeouts(fields: &mut Fields<'_, '_>) -> Option<Timeouts> {
    let limit = |cursor: Cursor<'_>| cursor.duration();
    let request = fields.optional("request", limit).filter(|d| !d.is_zero());
    let backend_request = fields
        .optional("backendRequest", limit)
        .filter(|d| !d.is_zero());
    if let (Some(whole), Some(attempt)) = (request, backend_request)
        && attempt > whole
    {
        let message = "`backendRequest` is longer than `request`, which includes it";
        return fields
            .cursor()
            .error(message, "make it shorter, or leave it out");
    }
    Some(Timeouts {
        request,
        backend_request,
    })
}

const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];

fn retry(fields: &mut Fields<'_, '_>, matches: &[RouteMatch]) -> Option<Retry> {
    let attempts = fields.optional("attempts", attempts);
    let codes = fields.list("codes", |cursor| cursor.number::<u16>(400..=599));
    let backoff = fields.optional("backoff", |c| c.duration());
    let methods = fields.list("methods", retried_method);
    let retry = Retry {
        attempts_max: attempts.unwrap_or(defaults::RETRY_ATTEMPTS),
        codes,
        methods,
        backoff: backoff.unwrap_or(defaults::RETRY_BACKOFF),
    };
    warn_of_codes_in_vain(fields, &retry, matches);
    Some(retry)
}

fn hedge(fields: &mut Fields<'_, '_>) -> Option<Hedge> {
    let after = fields.optional("after", hedge_after);
    let extra = fields.optional("extra_percent", |c| c.number(1..=100));
    Some(Hedge {
        after: after.unwrap_or(HedgeAfter::P95),
        extra_percent: extra.unwrap_or(defaults::HEDGE_EXTRA_PERCENT),
    })
}

fn hedge_after(cursor: Cursor<'_>) -> Option<HedgeAfter> {
    match cursor.text()? {
        "p95" => Some(HedgeAfter::P95),
        text if !text.starts_with(|first: char| first.is_ascii_digit()) => {
            let hint = "write p95, or a duration such as 50ms";
            cursor.error(format!("`{text}` is neither p95 nor a duration"), hint)
        }
        _ => cursor.nonzero_duration().map(HedgeAfter::Fixed),
    }
}

fn attempts(cursor: Cursor<'_>) -> Option<u32> {
    let attempts = cursor.number(0..=defaults::RETRY_ATTEMPTS_MAX)?;
    if attempts == 0 {
        cursor.warning("0 means no retry at all", "did you mean 1?");
    }
    Some(attempts)
}

fn retried_method(cursor: Cursor<'_>) -> Option<Arc<str>> {
    let method = cursor.method()?;
    if !IDEMPOTENT.contains(&&*method) {
        let message = format!("a {method} that is retried may be done twice");
        cursor.warning(message, "be sure that the service recognises a repetition");
    }
    Some(method)
}

/// `codes` count for idempotent requests only, unless `methods` names others.
fn warn_of_codes_in_vain(fields: &Fields<'_, '_>, retry: &Retry, matches: &[RouteMatch]) {
    let in_vain =
        |method: &Arc<str>| !IDEMPOTENT.contains(&&**method) && !retry.methods.contains(method);
    let methods = matches.iter().map(|matched| matched.method.as_ref());
    let vain = methods.map(|method| method.filter(|method| in_vain(method)));
    let Some(vain) = vain.collect::<Option<Vec<_>>>() else {
        return;
    };
    if let (false, Some(method)) = (retry.codes.is_empty(), vain.first()) {
        let message = format!("`codes` are not retried for {method}");
        let hint = format!("where a repetition does no harm, say `methods: [{method}]`");
        fields.cursor().warning(message, hint);
    }
}

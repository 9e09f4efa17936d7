//! The filters of a rule or backend: which there are, and which go together. One file for the settings of each.

mod compression;
mod cors;
mod direct_response;
mod fault;
mod headers;
mod limits;
mod mirror;
mod path;
mod redirect;
mod rewrite;

pub use mirror::MirrorSpec;

use crate::config::decode::{Cursor, Fields};
use crate::model::{Filter, RouteKind, RouteMatch};

/// The kinds of filter, and the key that holds each one's settings.
#[derive(Clone, Copy)]
enum FilterKind {
    RequestHeaders,
    ResponseHeaders,
    RequestRedirect,
    UrlRewrite,
    Cors,
    DirectResponse,
    FaultInjection,
    RateLimit,
    RequestSizeLimit,
    Compression,
    RequestMirror,
}

/// The filters of a rule or backend, and the services that its requests are copied to.
pub(in crate::config::spec) struct Filters {
    pub filters: Vec<Filter>,
    pub mirrors: Vec<MirrorSpec>,
}

/// One entry of the list.
enum Entry {
    Filter(Filter),
    Mirror(MirrorSpec),
}

/// Where a list of filters stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config::spec) enum Place {
    /// In a rule without backends, so that a filter has to answer.
    RuleAlone,
    /// In a rule that has backends.
    Rule,
    Backend {
        /// The rule's own filters write another path.
        rewritten: bool,
    },
}

/// The filters of a rule with these matches, or of one of its backends.
pub(in crate::config::spec) fn filters(
    fields: &mut Fields<'_, '_>,
    kind: RouteKind,
    place: Place,
    matches: &[RouteMatch],
) -> Filters {
    let mut read = Filters {
        filters: Vec::new(),
        mirrors: Vec::new(),
    };
    fields.list("filters", |cursor| {
        match cursor.fields(|fields| entry(fields, matches))? {
            Entry::Filter(filter) => {
                is_for(cursor, &filter, kind)?;
                fits(cursor, &filter, place, &read.filters)?;
                read.filters.push(filter);
            }
            Entry::Mirror(_) if place == Place::RuleAlone => {
                let message = "requests are copied where backends get them";
                return cursor.error(message, "write it in a rule that has `backendRefs`");
            }
            Entry::Mirror(mirror) => read.mirrors.push(mirror),
        }
        Some(())
    });
    read
}

fn entry(fields: &mut Fields<'_, '_>, matches: &[RouteMatch]) -> Option<Entry> {
    let Some(kind) = fields.required("type", filter_kind) else {
        fields.ignore_rest();
        return None;
    };
    let headers = |cursor: Cursor<'_>| cursor.fields(headers::header_modifier);
    let filter = match kind {
        FilterKind::RequestMirror => {
            let mirror = fields.required("requestMirror", |cursor| cursor.fields(mirror::mirror));
            return mirror.map(Entry::Mirror);
        }
        FilterKind::RequestHeaders => fields
            .required("requestHeaderModifier", headers)
            .map(Filter::RequestHeaders),
        FilterKind::ResponseHeaders => fields
            .required("responseHeaderModifier", headers)
            .map(Filter::ResponseHeaders),
        FilterKind::RequestRedirect => fields
            .required("requestRedirect", |cursor| {
                cursor.fields(|fields| redirect::redirect(fields, matches))
            })
            .map(Filter::RequestRedirect),
        FilterKind::UrlRewrite => fields
            .required("urlRewrite", |cursor| {
                cursor.fields(|fields| rewrite::rewrite(fields, matches))
            })
            .map(Filter::UrlRewrite),
        FilterKind::Cors => fields
            .required("cors", |cursor| {
                cursor.fields(|fields| cors::cors(fields, matches))
            })
            .map(Filter::Cors),
        FilterKind::DirectResponse => fields
            .required("directResponse", |cursor| {
                cursor.fields(direct_response::direct_response)
            })
            .map(Filter::DirectResponse),
        FilterKind::FaultInjection => fields
            .required("faultInjection", |cursor| {
                cursor.fields(fault::fault_injection)
            })
            .map(Filter::FaultInjection),
        FilterKind::RateLimit => fields
            .required("rateLimit", |cursor| cursor.fields(limits::rate_limit))
            .map(Filter::RateLimit),
        FilterKind::RequestSizeLimit => fields
            .required("requestSizeLimit", |cursor| {
                cursor.fields(limits::size_limit)
            })
            .map(Filter::RequestSizeLimit),
        FilterKind::Compression => fields
            .required("compression", |cursor| {
                cursor.fields(compression::compression)
            })
            .map(Filter::Compression),
    };
    filter.map(Entry::Filter)
}

/// Calls of gRPC have no use for what answers in plain HTTP or makes another path.
fn is_for(cursor: Cursor<'_>, filter: &Filter, kind: RouteKind) -> Option<()> {
    let of_http = filter.answers()
        || matches!(
            filter,
            Filter::UrlRewrite(_) | Filter::Cors(_) | Filter::Compression(_)
        );
    if kind == RouteKind::Grpc && of_http {
        let message = format!("a GRPCRoute has no {}", filter.kind());
        return cursor.error(
            message,
            "write an HTTPRoute, whose paths are /service/method",
        );
    }
    Some(())
}

/// Whether a filter may stand there, and with those before it.
fn fits(cursor: Cursor<'_>, filter: &Filter, place: Place, before: &[Filter]) -> Option<()> {
    let kind = std::mem::discriminant(filter);
    // The standard allows each kind once in a list.
    if before.iter().any(|one| std::mem::discriminant(one) == kind) {
        return cursor.error("this type of filter is here already", "write both as one");
    }
    if filter.answers() && place != Place::RuleAlone {
        let message = format!(
            "{} is answered here, so no backend gets the request",
            filter.kind()
        );
        return cursor.error(message, "leave out `backendRefs`, or write a rule for each");
    }
    // Two that answer, or one and a rewrite for the backend that is not asked.
    let decides = |one: &Filter| one.answers() || matches!(one, Filter::UrlRewrite(_));
    let excludes = |one: &Filter| decides(one) && decides(filter);
    if let Some(other) = before.iter().find(|one| excludes(one)) {
        let message = format!("{} and {} exclude each other", other.kind(), filter.kind());
        return cursor.error(message, "write a rule for each");
    }
    if place == (Place::Backend { rewritten: true }) && filter.rewrites_path() {
        let message = "the rule itself rewrites the path already";
        return cursor.error(message, "write it there or here");
    }
    Some(())
}

fn filter_kind(cursor: Cursor<'_>) -> Option<FilterKind> {
    match cursor.text()? {
        "ExtensionRef" | "ExternalAuth" => cursor.error(
            "this filter is not built yet",
            "the other filters of the standard are; see config/",
        ),
        _ => cursor.choice(&[
            ("RequestHeaderModifier", FilterKind::RequestHeaders),
            ("ResponseHeaderModifier", FilterKind::ResponseHeaders),
            ("RequestRedirect", FilterKind::RequestRedirect),
            ("URLRewrite", FilterKind::UrlRewrite),
            ("CORS", FilterKind::Cors),
            ("DirectResponse", FilterKind::DirectResponse),
            ("FaultInjection", FilterKind::FaultInjection),
            ("RateLimit", FilterKind::RateLimit),
            ("RequestSizeLimit", FilterKind::RequestSizeLimit),
            ("Compression", FilterKind::Compression),
            ("RequestMirror", FilterKind::RequestMirror),
        ]),
    }
}

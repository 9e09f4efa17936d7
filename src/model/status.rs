use std::sync::Arc;

use super::Name;

/// What became of a `GatewayClass`, a `Gateway`, a route or a `BackendTLSPolicy`: its status, in the Gateway API's own words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// As documents write it.
    pub kind: &'static str,
    pub name: Name,
    /// Of the document as a whole; routes and policies have theirs for each parent.
    pub conditions: Vec<Condition>,
    pub listeners: Vec<ListenerStatus>,
    pub parents: Vec<ParentStatus>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerStatus {
    pub name: Arc<str>,
    /// The kinds of routes that it takes.
    pub kinds: Vec<&'static str>,
    pub attached_routes: usize,
    pub conditions: Vec<Condition>,
}

/// What a route is to one of those that it says it belongs to, or a policy to its target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParentStatus {
    /// `Gateway` or `Service`; `Mesh` stands for all sidecars, where a route without `parentRefs` applies by its hostnames.
    pub kind: &'static str,
    pub name: Name,
    pub section: Option<Arc<str>>,
    pub port: Option<u16>,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, `Programmed` or `Conflicted`.
    pub condition: &'static str,
    pub holds: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    pub fn holds(condition: &'static str, reason: &'static str) -> Self {
        Self {
            condition,
            holds: true,
            reason,
            message: String::new(),
        }
    }

    pub fn fails(
        condition: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            condition,
            holds: false,
            reason,
            message: message.into(),
        }
    }
}

use std::sync::Arc;

/// Traffic lanes of a service for gray release: requests that name a lane go to its instances, all others to those without one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gray {
    /// The header that names a lane.
    pub header: Option<Arc<str>>,
    /// The member of W3C `baggage` that names one.
    pub baggage: Option<Arc<str>>,
    /// The label of instances whose value is their lane.
    pub label: Arc<str>,
}

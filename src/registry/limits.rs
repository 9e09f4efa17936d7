use std::time::Duration;

/// What one registry takes at most. Beyond each of these a request is refused with its name.
#[derive(Clone, Debug)]
pub struct Limits {
    pub instances_max: usize,
    pub services_max: usize,
    pub documents_max: usize,
    /// What an instance that does not say is held to.
    pub critical_after_seconds: u32,
    pub removed_after_seconds: u32,
    /// Documents of one request; they are stored in one transaction, beside the record of what they replace.
    pub documents_per_request_max: usize,
    pub document_bytes_max: usize,
    /// Sidecars that watch at the same time.
    pub watches_max: usize,
    /// Requests that wait on purpose (long-polls, waits for acknowledgements).
    pub waits_max: usize,
    /// Requests in work, but for those that wait.
    pub requests_max: usize,
    pub connections_max: usize,
    /// The body of a document request; all others are at most 64 KiB.
    pub body_bytes_max: usize,
    /// A request that does not wait on purpose is answered within this.
    pub request_timeout: Duration,
    /// Revisions of documents that history and rollback reach back.
    pub history_max: u64,
    /// A connection that takes nothing for this long while there is something to send is closed.
    pub stall_timeout: Duration,
    /// How often a watch says that it is alive.
    pub heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instances_max: 250_000,
            services_max: 50_000,
            documents_max: 100_000,
            critical_after_seconds: 15,
            removed_after_seconds: 30,
            documents_per_request_max: 120,
            document_bytes_max: 192 << 10,
            watches_max: 20_000,
            waits_max: 20_000,
            requests_max: 2_048,
            connections_max: 50_000,
            body_bytes_max: 1 << 20,
            request_timeout: Duration::from_secs(30),
            history_max: 100,
            stall_timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
        }
    }
}

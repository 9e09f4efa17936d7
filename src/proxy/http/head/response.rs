use super::{Fields, Version};

/// A response's head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// 100..=599.
    pub status: u16,
    pub version: Version,
    pub fields: Fields,
    /// As it came; empty stands for the usual phrase of the status.
    reason: Vec<u8>,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self::new(200)
    }
}

impl ResponseHead {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            version: Version::default(),
            fields: Fields::new(),
            reason: Vec::new(),
        }
    }

    /// Makes it as good as new and keeps the memory.
    pub fn clear(&mut self) {
        self.status = 200;
        self.version = Version::default();
        self.fields.clear();
        self.reason.clear();
    }

    /// The phrase as it came, or else the usual one for the status.
    pub fn reason(&self) -> &[u8] {
        if self.reason.is_empty() {
            return canonical_reason(self.status).as_bytes();
        }
        &self.reason
    }

    pub fn set_reason(&mut self, reason: &[u8]) {
        self.reason.clear();
        self.reason.extend_from_slice(reason);
    }

    /// A response that precedes the final one; 101 is final, since the connection changes hands with it.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

/// The phrase RFC 9110 gives a status; empty where there is none.
pub fn canonical_reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        404 => "Not Found",
        503 => "Service Unavailable",
        other => http::StatusCode::from_u16(other)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_came_or_what_the_status_means() {
        let mut head = ResponseHead::new(418);
        assert_eq!(head.reason(), b"I'm a teapot");
        head.set_reason(b"Short and stout");
        assert_eq!(head.reason(), b"Short and stout");
        head.clear();
        assert_eq!(head.reason(), b"OK");
        assert_eq!(ResponseHead::new(599).reason(), b"");
    }
}

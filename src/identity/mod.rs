//! Whom we trust and who we are on TLS connections: certificates from files, rustls configurations, reloading.

//! The wire types of the registry's HTTP API, used by registry, discovery and cli.

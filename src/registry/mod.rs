//! The control plane: instances, mesh documents by revision, watches, the HTTP API.

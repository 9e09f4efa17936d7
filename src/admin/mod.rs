//! Read and steer a running process over HTTP.

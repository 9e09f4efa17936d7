//! Bytes: HTTP/1 as tables and against another reader.

mod differential;

//! What HTTP/1 and HTTP/2 share: the message heads, and the walk of a request between the two sides.

pub mod admission;
mod admitted;
pub mod attempt;
pub mod body;
pub mod deadline;
pub mod downstream;
pub mod exchange;
mod explained;
pub mod forward;
pub mod gray;
mod hash_key;
pub mod head;
pub mod headers;
pub mod hedge;
pub mod load_report;
pub mod mirror;
mod pack;
mod pause;
mod persistence;
pub mod plan;
pub mod repeats;
pub mod replay;
pub mod respond;
pub mod tries;
pub mod tunnel;
pub mod undelivered;

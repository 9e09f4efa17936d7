//! What HTTP/1 and HTTP/2 share: the message heads, and what is done with them between the two sides.

pub mod head;

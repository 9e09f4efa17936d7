//! Any bytes are a query that is answered or forwarded, or are nothing; what is answered is a response to exactly that query, and no
//! answer is ever answered.

use std::collections::HashSet;
use std::sync::LazyLock;

use pillion::dns::Names;
use pillion::dns::answer::{Reaction, react};
use pillion::model::{Name, VirtualAddresses};

/// More than a query with one name and an answer with one record can be: a name has 255 bytes at most.
const ANSWER_BYTES_MAX: usize = 2048;
const RESPONSE: u8 = 0x80;

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let mut addresses = VirtualAddresses::default();
    let services = [("shop", "cart"), ("default", "a"), ("default", "b")];
    let services = services.map(|(namespace, name)| Name::new(namespace, name));
    addresses.assign(&HashSet::from(services));
    Names::new(&addresses, "shop")
});

pub fn check(query: &[u8]) {
    let reaction = react(query, &NAMES);
    assert_eq!(react(query, &NAMES), reaction, "it has no memory");
    let Reaction::Answer(answer, _) = reaction else {
        return;
    };
    assert!(answer.len() <= ANSWER_BYTES_MAX, "{} bytes", answer.len());
    assert_eq!(answer[..2], query[..2], "the id");
    assert_eq!(answer[2] & RESPONSE, RESPONSE);
    assert_eq!(react(&answer, &NAMES), Reaction::Ignore, "an answer is no query");
}

//! What packets become, without sockets; those are in `tests/hosts/names.rs`.

use std::collections::HashSet;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};

use super::answer::{Reaction, react};
use super::counts::Outcome;
use super::names::Names;
use crate::base::rng;
use crate::model::{self, VirtualAddresses};

fn names() -> Names {
    let mut addresses = VirtualAddresses::default();
    addresses.assign(&HashSet::from([model::Name::new("shop", "cart")]));
    Names::new(&addresses, "shop")
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn reaction(message: &Message) -> Reaction {
    react(&message.to_bytes().unwrap(), &names())
}

/// The answer to a query, which carries its id and question.
fn answered(message: &Message, expected: Outcome) -> Message {
    let Reaction::Answer(bytes, outcome) = reaction(message) else {
        panic!("no answer of ours: {:?}", reaction(message));
    };
    assert_eq!(outcome, expected);
    assert!(bytes.len() <= 512, "too long for any client");
    let answer = Message::from_bytes(&bytes).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.queries, message.queries);
    answer
}

#[test]
fn a_service_has_one_address_whatever_the_case_of_its_name() {
    for name in ["cart.", "CaRt.sHop.", "cart.shop.mesh."] {
        let answer = answered(&query(name, RecordType::A), Outcome::Mesh);
        let records: Vec<String> = answer.answers.iter().map(ToString::to_string).collect();
        assert_eq!(records, [format!("{name} 10 IN A 240.170.48.204")]);
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    }
}

#[test]
fn other_types_of_a_service_are_empty_and_say_how_long_that_holds() {
    for kind in [RecordType::AAAA, RecordType::HTTPS, RecordType::MX] {
        let answer = answered(&query("cart.shop.mesh.", kind), Outcome::Mesh);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty());
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
        assert_eq!(answer.authorities[0].name.to_string(), "mesh.");
    }
    let bare = answered(&query("cart.", RecordType::AAAA), Outcome::Mesh);
    assert_eq!(bare.authorities[0].name.to_string(), "cart.");
}

#[test]
fn what_is_not_in_the_mesh_does_not_exist_there_and_is_forwarded_elsewhere() {
    let denied = answered(&query("till.shop.mesh.", RecordType::A), Outcome::Denied);
    assert_eq!(denied.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(denied.authorities[0].record_type(), RecordType::SOA);
    assert_eq!(
        reaction(&query("example.com.", RecordType::A)),
        Reaction::Forward
    );

    let mut chaos = query("cart.", RecordType::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(reaction(&chaos), Reaction::Forward);
    let mut update = query("cart.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(reaction(&update), Reaction::Forward);
}

#[test]
fn before_the_mesh_is_known_the_client_is_to_ask_again() {
    let message = query("cart.shop.mesh.", RecordType::A);
    let reaction = react(&message.to_bytes().unwrap(), &Names::default());
    let Reaction::Answer(bytes, Outcome::Failed) = reaction else {
        panic!("{reaction:?}");
    };
    let answer = Message::from_bytes(&bytes).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn a_client_that_speaks_edns_is_answered_in_it() {
    let mut message = query("cart.", RecordType::A);
    assert_eq!(answered(&message, Outcome::Mesh).edns, None);
    message.set_edns(Edns::new());
    assert!(answered(&message, Outcome::Mesh).edns.is_some());
}

#[test]
fn broken_packets_are_named_so_and_those_that_are_no_queries_are_left_alone() {
    let names = names();
    let whole = query("cart.shop.mesh.", RecordType::A).to_bytes().unwrap();
    for end in 0..12 {
        assert_eq!(react(&whole[..end], &names), Reaction::Ignore);
    }
    for end in 12..whole.len() {
        let Reaction::Answer(bytes, Outcome::Malformed) = react(&whole[..end], &names) else {
            panic!("cut at {end}");
        };
        let answer = Message::from_bytes(&bytes).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
        assert_eq!(bytes[..2], whole[..2]);
    }
    let mut response = whole.clone();
    response[2] |= 0x80;
    assert_eq!(react(&response, &names), Reaction::Ignore);
    // A name that points at itself.
    let mut pointing = whole;
    pointing[12..14].copy_from_slice(&[0xc0, 12]);
    assert!(matches!(
        react(&pointing, &names),
        Reaction::Answer(_, Outcome::Malformed)
    ));
}

#[test]
fn any_bytes_are_taken_in_peace() {
    let names = names();
    let mut rng = rng::for_test();
    let whole = query("cart.shop.mesh.", RecordType::A).to_bytes().unwrap();
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..rng.usize(1..6) {
            let place = rng.usize(..bytes.len());
            bytes[place] = rng.u8(..);
        }
        bytes.truncate(rng.usize(..=bytes.len()));
        if let Reaction::Answer(answer, _) = react(&bytes, &names) {
            assert_eq!(answer[..2], bytes[..2]);
        }
    }
}

//! What a query means: an answer of our own, bytes to forward, or nothing at all. Pure, and any bytes will do.

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable};

use super::counts::Outcome;
use super::names::{Found, Names};
use crate::model;

/// How long an answer may be kept, in seconds: a service that has gone is not dialled for longer than that.
const TTL: u32 = 10;
/// How long it may be kept that there is none; a service that comes is called sooner than that.
const NEGATIVE_TTL: u32 = 5;
/// What fits a UDP packet on any path.
const UDP_PAYLOAD: u16 = 1232;

/// What becomes of a query.
#[derive(PartialEq, Eq, Debug)]
pub enum Reaction {
    /// These bytes are its answer.
    Answer(Vec<u8>, Outcome),
    /// It goes upstream as it is.
    Forward,
    /// It is no query, so nobody waits for an answer.
    Ignore,
}

pub fn react(bytes: &[u8], names: &Names) -> Reaction {
    let mut decoder = BinDecoder::new(bytes);
    let Ok(header) = Header::read(&mut decoder) else {
        return Reaction::Ignore;
    };
    if header.message_type == MessageType::Response {
        return Reaction::Ignore;
    }
    if header.op_code != OpCode::Query || header.counts.queries != 1 {
        return Reaction::Forward;
    }
    let Ok(question) = Query::read(&mut decoder) else {
        return error(bytes, ResponseCode::FormErr, Outcome::Malformed);
    };
    let found = match question.query_class {
        DNSClass::IN | DNSClass::ANY => find(names, &question.name),
        _ => Found::Elsewhere,
    };
    if found == Found::Elsewhere {
        return Reaction::Forward;
    }
    let Ok(query) = Message::from_bytes(bytes) else {
        return error(bytes, ResponseCode::FormErr, Outcome::Malformed);
    };
    let (code, outcome) = match found {
        Found::Nobody => (ResponseCode::NXDomain, Outcome::Denied),
        Found::Unknown => (ResponseCode::ServFail, Outcome::Failed),
        Found::Address(_) | Found::Parent | Found::Elsewhere => {
            (ResponseCode::NoError, Outcome::Mesh)
        }
    };
    reaction(&answer(&query, &question, found, code), outcome)
}

/// An answer that says nothing but this code, to the query that begins with these bytes.
pub fn error(bytes: &[u8], code: ResponseCode, outcome: Outcome) -> Reaction {
    let mut decoder = BinDecoder::new(bytes);
    let Ok(header) = Header::read(&mut decoder) else {
        return Reaction::Ignore;
    };
    let mut message = Message::error_msg(header.id, header.op_code, code);
    message.metadata.recursion_desired = header.recursion_desired;
    message.metadata.recursion_available = true;
    if header.counts.queries == 1
        && let Ok(question) = Query::read(&mut decoder)
    {
        message.add_query(question);
    }
    reaction(&message, outcome)
}

fn reaction(message: &Message, outcome: Outcome) -> Reaction {
    match message.to_bytes() {
        Ok(bytes) => Reaction::Answer(bytes, outcome),
        // All that is in it was read from a packet or is short.
        Err(_) => Reaction::Ignore,
    }
}

fn find(names: &Names, name: &Name) -> Found {
    match text(name) {
        Some(text) => names.find(&text),
        None => Found::Elsewhere,
    }
}

/// In lower case, without the dot at the end. None where it could not be a host's name, and its labels would be ambiguous.
fn text(name: &Name) -> Option<String> {
    let mut text = String::new();
    for label in name.iter() {
        let label = std::str::from_utf8(label).ok()?;
        if label.contains('.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(&label.to_ascii_lowercase());
    }
    Some(text)
}

fn answer(query: &Message, question: &Query, found: Found, code: ResponseCode) -> Message {
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.metadata.response_code = code;
    answer.metadata.authoritative = code != ResponseCode::ServFail;
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_query(question.clone());
    match (found, question.query_type) {
        (Found::Address(address), RecordType::A | RecordType::ANY) => {
            let data = RData::A(A(address));
            answer.add_answer(Record::from_rdata(question.name.clone(), TTL, data));
        }
        (Found::Unknown, _) => {}
        // Without it a resolver may not remember that there is nothing.
        _ => {
            answer.add_authority(start_of_authority(&question.name));
        }
    }
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD);
        answer.set_edns(edns);
    }
    answer
}

/// The zone that a name is in: the mesh's domain, or for a name outside of it the name alone.
fn start_of_authority(name: &Name) -> Record {
    let mesh = Name::from_labels([model::Name::MESH_DOMAIN]).unwrap_or_default();
    let zone = match mesh.zone_of(name) {
        true => mesh.clone(),
        false => name.clone(),
    };
    let seconds = NEGATIVE_TTL as i32;
    let data = SOA::new(
        mesh.clone(),
        mesh,
        1,
        seconds,
        seconds,
        seconds,
        NEGATIVE_TTL,
    );
    Record::from_rdata(zone, NEGATIVE_TTL, RData::SOA(data))
}

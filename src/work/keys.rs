//! Where work is in the store. Times are milliseconds since 1970 in hexadecimal, so that keys sort by them.
//!
//! ```text
//! task/<id>                     a task
//! tdue/<time>/<id>              when an attempt of it is due; there as long as the task is not over
//! tkey/<namespace>/<service>/<key>   the id of the task that has this key
//! tend/<time>/<id>              when a task that is over is forgotten
//! tlane/<namespace>/<service>   there while the tasks of this service are paused
//! ```

use percent_encoding::percent_decode_str;

use crate::api::client::segment;
use crate::model::Name;
use crate::store::{Key, KeyRange};

pub const TASKS: &str = "task/";
pub const DUE: &str = "tdue/";
pub const ENDS: &str = "tend/";
pub const LANES: &str = "tlane/";

pub fn task(id: &str) -> Key {
    format!("{TASKS}{id}").into()
}

pub fn due(time: u64, id: &str) -> Key {
    format!("{DUE}{time:016x}/{id}").into()
}

pub fn end(time: u64, id: &str) -> Key {
    format!("{ENDS}{time:016x}/{id}").into()
}

pub fn key(namespace: &str, service: &str, key: &str) -> Key {
    let [namespace, service, key] = [namespace, service, key].map(segment);
    format!("tkey/{namespace}/{service}/{key}").into()
}

/// The lane of a service.
pub fn lane(service: &Name) -> Key {
    let [namespace, name] = [&service.namespace, &service.name].map(|part| segment(part));
    format!("{LANES}{namespace}/{name}").into()
}

/// Whose lane a key of [`lane`] is.
pub fn service_of_lane(key: &[u8]) -> Option<Name> {
    let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let (namespace, name) = std::str::from_utf8(key)
        .ok()?
        .strip_prefix(LANES)?
        .split_once('/')?;
    Some(Name::new(&decoded(namespace), &decoded(name)))
}

/// The time and the id of a key of [`due`] or [`end`].
pub fn time_and_id(key: &[u8]) -> Option<(u64, &str)> {
    let key = std::str::from_utf8(key).ok()?;
    let (_, rest) = key.split_once('/')?;
    let (time, id) = rest.split_once('/')?;
    Some((u64::from_str_radix(time, 16).ok()?, id))
}

/// What ended before `time`.
pub fn ended_before(time: u64) -> KeyRange {
    KeyRange {
        start: ENDS.into(),
        end: Some(format!("{ENDS}{time:016x}/").into()),
    }
}

/// The tasks after the one of this id.
pub fn tasks_after(id: &str) -> KeyRange {
    KeyRange {
        start: [task(id).as_ref(), &[0]].concat().into(),
        ..KeyRange::prefix(TASKS)
    }
}

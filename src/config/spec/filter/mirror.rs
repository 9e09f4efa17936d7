use super::super::route::{BackendRef, service_ref};
use crate::base::rng::Chance;
use crate::config::decode::Fields;

/// Another service that gets copies of requests.
#[derive(Debug)]
pub struct MirrorSpec {
    pub backend: BackendRef,
    /// Of each request.
    pub chance: Chance,
}

pub(super) fn mirror(fields: &mut Fields<'_, '_>) -> Option<MirrorSpec> {
    let backend = fields.required("backendRef", |cursor| cursor.fields(service_ref));
    let percent = fields.optional("percent", |c| c.percent());
    let fraction = fields.optional("fraction", |cursor| cursor.fields(fraction));
    if fields.has("percent") && fields.has("fraction") {
        let here = fields.cursor();
        return here.error(
            "`percent` and `fraction` exclude each other",
            "say one of them",
        );
    }
    let share = percent.map(|percent| percent / 100.0).or(fraction);
    Some(MirrorSpec {
        backend: backend?,
        chance: share.map_or(Chance::ALWAYS, Chance::of),
    })
}

/// `{numerator: 5, denominator: 1000}`; the denominator is 100 where it is left out.
fn fraction(fields: &mut Fields<'_, '_>) -> Option<f64> {
    let numerator = fields.required("numerator", |c| c.number::<u32>(0..=i32::MAX as u64));
    let denominator = fields.optional("denominator", |c| c.number::<u32>(1..=i32::MAX as u64));
    let (numerator, denominator) = (numerator?, denominator.unwrap_or(100));
    if numerator > denominator {
        let message = format!("{numerator} of {denominator} is more than all");
        return fields.cursor().error(message, "the most is 1");
    }
    Some(f64::from(numerator) / f64::from(denominator))
}

//! FaultInjection: requests are delayed or refused on purpose, to see what their callers make of it.

use std::time::Duration;

use crate::base::units;
use crate::config::defaults;
use crate::model::{Fault, FaultInjection, What};
use crate::proxy::http::head::RequestHead;

/// How long this request is held back.
pub fn delay(
    fault: &FaultInjection,
    request: &RequestHead,
    rng: &mut fastrand::Rng,
) -> Option<Duration> {
    let read = |text: &str| units::parse_duration(text).ok();
    let delay = what(fault.delay.as_ref()?, request, rng, read)?;
    Some(delay.min(defaults::FAULT_DELAY_MAX))
}

/// The status that this request is refused with.
pub fn abort(
    fault: &FaultInjection,
    request: &RequestHead,
    rng: &mut fastrand::Rng,
) -> Option<u16> {
    let read = |text: &str| {
        let status = text.parse().ok();
        status.filter(|status| (400..=599).contains(status))
    };
    what(fault.abort.as_ref()?, request, rng, read)
}

/// What happens to this request, where something does. What cannot be read says nothing.
fn what<T: Copy>(
    fault: &Fault<T>,
    request: &RequestHead,
    rng: &mut fastrand::Rng,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let what = match &fault.what {
        What::Fixed(what) => *what,
        What::Said(field) => {
            let said = request.fields.find(field.as_bytes())?;
            read(std::str::from_utf8(said).ok()?)?
        }
    };
    fault.chance.falls(rng).then_some(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Chance;
    use crate::proxy::http::head::Fields;

    #[test]
    fn a_request_says_it_itself_and_nonsense_says_nothing() {
        let fault = FaultInjection {
            delay: None,
            abort: Some(Fault {
                what: What::Said("x-fault".into()),
                chance: Chance::ALWAYS,
            }),
        };
        let mut rng = fastrand::Rng::with_seed(7);
        for (said, expected) in [
            (Some("429"), Some(429)),
            (Some("200"), None),
            (Some("99999"), None),
            (Some("no"), None),
            (None, None),
        ] {
            let mut request = RequestHead::new();
            request.fields = said.map_or_else(Fields::new, |said| Fields::of(&[("X-Fault", said)]));
            assert_eq!(abort(&fault, &request, &mut rng), expected, "{said:?}");
        }
    }

    #[test]
    fn nobody_is_held_for_longer_than_the_bound() {
        let fault = FaultInjection {
            delay: Some(Fault {
                what: What::Said("x-delay".into()),
                chance: Chance::ALWAYS,
            }),
            abort: None,
        };
        let mut request = RequestHead::new();
        request.fields = Fields::of(&[("x-delay", "3h")]);
        let mut rng = fastrand::Rng::with_seed(7);
        let delay = delay(&fault, &request, &mut rng);
        assert_eq!(delay, Some(defaults::FAULT_DELAY_MAX));
    }
}

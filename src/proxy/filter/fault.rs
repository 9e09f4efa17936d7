//! FaultInjection: requests are delayed or refused on purpose, to see what their callers make of it.

use std::time::Duration;

use crate::base::units;
use crate::config::defaults;
use crate::model::{self, What};
use crate::proxy::http::head::RequestHead;

/// A [`model::FaultInjection`], ready.
#[derive(Debug)]
pub struct FaultInjection {
    delay: Option<Fault<Duration>>,
    abort: Option<Fault<u16>>,
}

#[derive(Debug)]
struct Fault<T> {
    what: What<T>,
    /// Of 2³² requests.
    share: u64,
}

impl FaultInjection {
    pub fn compile(model: &model::FaultInjection) -> Self {
        Self {
            delay: model.delay.as_ref().map(Fault::compile),
            abort: model.abort.as_ref().map(Fault::compile),
        }
    }

    /// How long this request is held back.
    pub fn delay(&self, request: &RequestHead, rng: &mut fastrand::Rng) -> Option<Duration> {
        let read = |text: &str| units::parse_duration(text).ok();
        let delay = self.delay.as_ref()?.what(request, rng, read)?;
        Some(delay.min(defaults::FAULT_DELAY_MAX))
    }

    /// The status that this request is refused with.
    pub fn abort(&self, request: &RequestHead, rng: &mut fastrand::Rng) -> Option<u16> {
        let read = |text: &str| {
            text.parse()
                .ok()
                .filter(|status| (400..=599).contains(status))
        };
        self.abort.as_ref()?.what(request, rng, read)
    }
}

impl<T: Copy> Fault<T> {
    fn compile(model: &model::Fault<T>) -> Self {
        Self {
            what: model.what.clone(),
            share: (model.percent / 100.0 * 2f64.powi(32)) as u64,
        }
    }

    /// What happens to this request, where something does. What cannot be read says nothing.
    fn what(
        &self,
        request: &RequestHead,
        rng: &mut fastrand::Rng,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let what = match &self.what {
            What::Fixed(what) => *what,
            What::Said(field) => {
                let said = request.fields.find(field.as_bytes())?;
                read(std::str::from_utf8(said).ok()?)?
            }
        };
        (u64::from(rng.u32(..)) < self.share).then_some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::http::head::Fields;

    fn aborts(what: What<u16>, percent: f64) -> FaultInjection {
        FaultInjection::compile(&model::FaultInjection {
            delay: None,
            abort: Some(model::Fault { what, percent }),
        })
    }

    #[test]
    fn the_percentage_is_kept() {
        for percent in [0.0, 0.1, 30.0, 100.0] {
            let fault = aborts(What::Fixed(503), percent);
            let mut rng = fastrand::Rng::with_seed(7);
            let request = RequestHead::new();
            let met = (0..100_000).filter(|_| fault.abort(&request, &mut rng) == Some(503));
            let met = met.count() as f64 / 1_000.0;
            assert!(
                (met - percent).abs() < 0.6 && (percent != 0.0 || met == 0.0),
                "{met}"
            );
            assert!(percent != 100.0 || met == 100.0, "{met}");
        }
    }

    #[test]
    fn a_request_says_it_itself_and_nonsense_says_nothing() {
        let fault = aborts(What::Said("x-fault".into()), 100.0);
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
            assert_eq!(fault.abort(&request, &mut rng), expected, "{said:?}");
        }
    }

    #[test]
    fn nobody_is_held_for_longer_than_the_bound() {
        let fault = FaultInjection::compile(&model::FaultInjection {
            delay: Some(model::Fault {
                what: What::Said("x-delay".into()),
                percent: 100.0,
            }),
            abort: None,
        });
        let mut request = RequestHead::new();
        request.fields = Fields::of(&[("x-delay", "3h")]);
        let mut rng = fastrand::Rng::with_seed(7);
        assert_eq!(
            fault.delay(&request, &mut rng),
            Some(defaults::FAULT_DELAY_MAX)
        );
    }
}

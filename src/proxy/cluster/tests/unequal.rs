//! The table of `benches/unequal` in short: endpoints of unequal speed, and many proxies that do not know of each other.

#[path = "../../../../benches/unequal/simulation.rs"]
mod simulation;

use std::time::Duration;

use self::simulation::{Case, Chooser, Figures};
use crate::model::Policy;

fn figures(chooser: Chooser) -> Figures {
    let case = Case {
        chooser,
        load: 0.75,
        reports: Duration::from_secs(1),
        length: Duration::from_secs(2),
    };
    case.run(1)
}

/// On a clock of its own and with a seed, so that no machine is too slow for it.
#[test]
fn who_goes_by_latency_keeps_unequal_endpoints_busy_alike_and_a_herd_does_not() {
    let of = |policy| figures(Chooser::Policy(policy));
    let best = figures(Chooser::Best);
    let (ewma, factor) = (of(Policy::PeakEwma), of(Policy::LoadFactor));
    assert!(ewma.p99 < 3.0 * best.p99, "{ewma:?}, best {best:?}");
    assert!(factor.p99 < 3.0 * best.p99, "{factor:?}, best {best:?}");
    let herd = of(Policy::LowestLoad);
    assert!(herd.p50 > 5.0 * factor.p50, "{herd:?}, {factor:?}");
    assert!(herd.p99 > 5.0 * factor.p99, "{herd:?}, {factor:?}");
}

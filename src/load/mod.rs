//! How busy an instance is, as one number: what is nearest to its limit ([`Usage::factor`]).
//!
//! [`sample`] measures the instance by what the kernel tells of it, [`orca`] reads what an application says of itself and writes
//! what a sidecar tells its callers. Both are pure but for reading the kernel's files, whose place and the time are passed in.
//!
//! It leaves out who asks, how often, and what a balancer makes of the answer (`proxy::cluster`).

pub mod orca;
pub mod sample;

/// From this share of its memory on, an instance is the busier the less is left: 80 %.
pub const MEMORY_FREE: f64 = 0.8;

/// What is used of each resource, as a share of what there is; None where that cannot be told.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Usage {
    pub cpu: Option<f64>,
    pub memory: Option<f64>,
    /// The share of time in which some thread has waited for memory.
    pub memory_pressure: Option<f64>,
    pub network: Option<f64>,
    /// What the application says of itself.
    pub application: Option<f64>,
    /// Requests that the application has, against the slots of its lane.
    pub lane: Option<f64>,
}

/// What an instance has least of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bottleneck {
    Cpu,
    Memory,
    Network,
    Application,
    Lane,
}

impl Bottleneck {
    pub fn as_str(self) -> &'static str {
        match self {
            Bottleneck::Cpu => "cpu",
            Bottleneck::Memory => "memory",
            Bottleneck::Network => "network",
            Bottleneck::Application => "application",
            Bottleneck::Lane => "lane",
        }
    }
}

/// The load of an instance.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Factor {
    /// 0 is idle, 1 is all that it can.
    pub value: f64,
    pub bottleneck: Bottleneck,
}

impl Usage {
    /// The bottleneck and how narrow it is, not an average (gRPC A114): an instance that is out of memory is not half idle because
    /// its CPU is. None where nothing at all is known.
    pub fn factor(&self) -> Option<Factor> {
        let memory = self
            .memory
            .map(|used| (used - MEMORY_FREE) / (1.0 - MEMORY_FREE));
        let loads = [
            (self.cpu, Bottleneck::Cpu),
            (memory, Bottleneck::Memory),
            (self.memory_pressure, Bottleneck::Memory),
            (self.network, Bottleneck::Network),
            (self.application, Bottleneck::Application),
            (self.lane, Bottleneck::Lane),
        ];
        let factors = loads.into_iter().filter_map(|(load, bottleneck)| {
            let value = load?.clamp(0.0, 1.0);
            Some(Factor { value, bottleneck })
        });
        factors
            .filter(|factor| factor.value.is_finite())
            .reduce(|most, next| if next.value > most.value { next } else { most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factor(usage: Usage) -> Option<(f64, Bottleneck)> {
        let factor = usage.factor()?;
        Some(((factor.value * 1e6).round() / 1e6, factor.bottleneck))
    }

    #[test]
    fn the_bottleneck_is_the_load() {
        let usage = Usage {
            cpu: Some(0.4),
            lane: Some(0.7),
            network: Some(0.1),
            ..Usage::default()
        };
        assert_eq!(factor(usage), Some((0.7, Bottleneck::Lane)));
        let application = Some(0.9);
        let usage = Usage {
            application,
            ..usage
        };
        assert_eq!(factor(usage), Some((0.9, Bottleneck::Application)));
    }

    #[test]
    fn memory_counts_from_four_fifths_on() {
        let with = |used| Usage {
            cpu: Some(0.2),
            memory: Some(used),
            ..Usage::default()
        };
        assert_eq!(factor(with(0.8)), Some((0.2, Bottleneck::Cpu)));
        assert_eq!(factor(with(0.9)), Some((0.5, Bottleneck::Memory)));
        assert_eq!(factor(with(1.3)), Some((1.0, Bottleneck::Memory)));
    }

    #[test]
    fn an_instance_of_which_nothing_is_known_has_no_load() {
        assert_eq!(factor(Usage::default()), None);
        let nonsense = Usage {
            cpu: Some(f64::NAN),
            ..Usage::default()
        };
        assert_eq!(factor(nonsense), None);
    }
}

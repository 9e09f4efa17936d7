//! Response flags: why an answer is as it is, in the letters that users and dashboards know from Envoy.

use std::fmt;

macro_rules! flags {
    ($($(#[doc = $meaning:literal])+ $flag:ident = $text:literal,)+) => {
        /// One reason; each variant's text is what it means.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Flag {
            $($(#[doc = $meaning])+ $flag,)+
        }

        impl Flag {
            pub const ALL: &[Flag] = &[$(Flag::$flag,)+];

            /// The letters in log and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Flag::$flag => $text,)+ }
            }

            /// One sentence for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Flag::$flag => concat!($($meaning),+).trim_ascii(),)+ }
            }
        }
    };
}

flags! {
    /// No endpoint of the service is healthy.
    NoHealthyUpstream = "UH",
    /// No connection to an endpoint could be made.
    UpstreamConnectionFailure = "UF",
    /// A circuit limit of the service was reached.
    UpstreamOverflow = "UO",
    /// No route matches the request.
    NoRoute = "NR",
    /// The service does not exist, or the reference to it does not resolve.
    NoCluster = "NC",
    /// The upstream did not answer within its timeout.
    UpstreamTimeout = "UT",
    /// The upstream closed its connection.
    UpstreamConnectionTermination = "UC",
    /// The upstream reset the request.
    UpstreamReset = "UR",
    /// The retries were used up, or their budget was.
    RetryLimitExceeded = "URX",
    /// The proxy reset the request.
    LocalReset = "LR",
    /// A rate limit refused the request.
    RateLimited = "RL",
    /// A fault was injected: the request was refused.
    FaultAbort = "FI",
    /// A fault was injected: the request was delayed.
    FaultDelay = "DI",
    /// The downstream client went away before the answer's end.
    DownstreamTermination = "DC",
    /// The time the request was given is over.
    DurationTimeout = "DT",
    /// The downstream client broke its protocol.
    DownstreamProtocolError = "DPE",
    /// The upstream broke its protocol.
    UpstreamProtocolError = "UPE",
    /// The stream was idle for too long.
    StreamIdleTimeout = "SI",
    /// The proxy is short of memory or connections.
    OverloadManager = "OM",
    /// The lane in front of the application refused the request.
    LaneShed = "LS",
    /// The host name of the upstream could not be resolved.
    DnsResolutionFailure = "DF",
}

/// A set of [`Flag`]s; empty for an answer that is simply the upstream's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u32);

impl Flags {
    pub const NONE: Flags = Flags(0);

    pub const fn with(self, flag: Flag) -> Self {
        Self(self.0 | 1 << flag as u8)
    }

    pub fn insert(&mut self, flag: Flag) {
        *self = self.with(flag);
    }

    pub const fn contains(self, flag: Flag) -> bool {
        self.0 & 1 << flag as u8 != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Flag> {
        let all = Flag::ALL.iter().copied();
        all.filter(move |flag| self.contains(*flag))
    }

    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl From<Flag> for Flags {
    fn from(flag: Flag) -> Self {
        Self::NONE.with(flag)
    }
}

/// `UF,URX`, or `-` for none.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (place, flag) in self.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{}", flag.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_shows_its_flags_in_order() {
        assert_eq!(Flags::NONE.to_string(), "-");
        let flags = Flags::from(Flag::RetryLimitExceeded).with(Flag::UpstreamConnectionFailure);
        assert_eq!(flags.to_string(), "UF,URX");
        assert_eq!(Flags::from_bits(flags.bits()), flags);
    }

    #[test]
    fn each_flag_means_one_sentence_and_has_its_own_letters() {
        let letters: std::collections::HashSet<_> = Flag::ALL.iter().map(|f| f.as_str()).collect();
        assert_eq!(letters.len(), Flag::ALL.len());
        assert!(Flag::ALL.iter().all(|flag| flag.meaning().ends_with('.')));
    }
}

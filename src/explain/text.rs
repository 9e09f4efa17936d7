//! An explanation for people.

use std::fmt::{self, Display, Formatter};

use super::facts::{At, Backend, Candidate, Effect, Endpoint, Explained, Mirror, Outcome, Rule};

impl Display for Explained {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.request)?;
        writeln!(f, "  {}", self.at)?;
        if let Some(path) = &self.normal_path {
            writeln!(f, "  path     {path}, as it is matched")?;
        }
        for candidate in &self.candidates {
            write!(f, "{candidate}")?;
        }
        if self.more_candidates > 0 {
            writeln!(
                f,
                "           and {} more with other paths",
                self.more_candidates
            )?;
        }
        if let Some(rule) = &self.rule {
            write!(f, "{rule}")?;
        }
        writeln!(f, "  {}", self.outcome)?;
        for backend in &self.backends {
            write!(f, "{backend}")?;
        }
        mirrors(f, "  ", &self.mirrors)
    }
}

impl Display for At {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            At::Gateway {
                gateway,
                listener,
                address,
                hostname,
                also,
            } => {
                let host = hostname.as_deref().unwrap_or("every host");
                write!(f, "listener {gateway}/{listener} on {address}, for {host}")?;
                match also.is_empty() {
                    true => Ok(()),
                    false => write!(f, " (also on {})", also.join(", ")),
                }
            }
            At::Sidecar {
                namespace,
                service,
                routes,
            } => {
                write!(f, "sidecar  of namespace {namespace}: ")?;
                match (service, routes) {
                    (Some(service), Some("parentRefs")) => {
                        write!(f, "routes attached to service {service}")
                    }
                    (_, Some(_)) => write!(f, "routes of this hostname"),
                    (Some(service), None) => write!(f, "service {service}, without routes"),
                    (None, None) => write!(f, "a host that is no service's"),
                }
            }
            At::Nowhere { why } => write!(f, "nowhere  {why}"),
        }
    }
}

impl Display for Candidate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (mark, why) = match self.taken {
            true => ("=>", ""),
            false => ("  ", self.why.as_str()),
        };
        let Candidate {
            kind,
            rule,
            matches,
            ..
        } = self;
        write!(f, "  {mark}       {kind} {rule}: {matches}")?;
        match why.is_empty() {
            true => writeln!(f),
            false => writeln!(f, "; but {why}"),
        }
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "  rule     {}", self.rule)?;
        effects(f, "  ", &self.filters)?;
        if let Some(limit) = self.request_timeout_ms {
            writeln!(f, "  timeout  {limit} ms for the request with its retries")?;
        }
        if let Some(limit) = self.backend_request_timeout_ms {
            writeln!(f, "  timeout  {limit} ms for each attempt")?;
        }
        if let Some(retry) = &self.retry {
            writeln!(f, "  retry    {retry}")?;
        }
        if let Some(hedge) = &self.hedge {
            writeln!(f, "  hedge    {hedge}")?;
        }
        if let Some(session) = &self.session {
            writeln!(f, "  session  {session}")?;
        }
        Ok(())
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Forwarded => write!(f, "forward  to"),
            Outcome::Answered {
                status,
                location: Some(location),
                filter,
            } => write!(f, "answer   {status} to {location}, by {filter}"),
            Outcome::Answered { status, filter, .. } => write!(f, "answer   {status}, by {filter}"),
            Outcome::Refused { status, why } => write!(f, "answer   {status}: {why}"),
            Outcome::Outside => write!(
                f,
                "forward  to where the client was going, if `outbound.passthrough` allows it"
            ),
        }
    }
}

impl Display for Backend {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let share = format!("{:.1} %", self.share_percent);
        if let Some(why) = &self.invalid {
            return writeln!(f, "  {share:>8} answered 500: {why}");
        }
        let cluster = self.cluster.as_deref().unwrap_or_default();
        writeln!(f, "  {share:>8} {cluster}, asked for {}", self.asked)?;
        effects(f, "             ", &self.filters)?;
        mirrors(f, "             ", &self.mirrors)?;
        let about = [
            ("api", &self.operation),
            ("balance", &self.balance),
            ("limits", &self.circuit),
            ("tls", &self.tls),
            ("failover", &self.failover),
            ("lane", &self.lane),
        ];
        for (name, value) in about {
            if let Some(value) = value {
                writeln!(f, "             {name:<8} {value}")?;
            }
        }
        if self.endpoints.is_empty() {
            writeln!(f, "             no endpoint is known here")?;
        }
        self.endpoints
            .iter()
            .try_for_each(|endpoint| write!(f, "{endpoint}"))
    }
}

impl Display for Endpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "             {} weight {}", self.address, self.weight)?;
        if self.priority > 0 {
            write!(f, ", priority {}", self.priority)?;
        }
        if let Some(zone) = &self.zone {
            write!(f, ", zone {zone}")?;
        }
        if let Some(lane) = &self.lane {
            write!(f, ", lane {lane}")?;
        }
        if let Some(state) = &self.state {
            write!(f, ", {state}")?;
        }
        if !self.why.is_empty() {
            write!(f, " ({})", self.why)?;
        }
        match self.score.is_empty() {
            true => writeln!(f),
            false => writeln!(f, "; {}", self.score),
        }
    }
}

fn mirrors(f: &mut Formatter<'_>, indent: &str, mirrors: &[Mirror]) -> fmt::Result {
    mirrors.iter().try_for_each(|mirror| {
        let to = mirror.cluster.as_ref().or(mirror.invalid.as_ref());
        let to = to.map_or("nobody", String::as_str);
        writeln!(
            f,
            "{indent}mirror   {} % copied to {to}",
            mirror.share_percent
        )
    })
}

fn effects(f: &mut Formatter<'_>, indent: &str, filters: &[Effect]) -> fmt::Result {
    for Effect { filter, effects } in filters {
        for effect in effects {
            writeln!(f, "{indent}filter   {filter}: {effect}")?;
        }
    }
    Ok(())
}

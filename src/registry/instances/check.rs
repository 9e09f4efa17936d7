//! What a registration may say.

use crate::api::{Instance, InstancePort, InstanceState, Registration};
use crate::registry::{Limits, Refusal};

const NAME_LENGTH_MAX: usize = 253;
const PORTS_MAX: usize = 64;
const LABELS_MAX: usize = 64;
const LABEL_LENGTH_MAX: usize = 256;
const WEIGHT_MAX: u32 = 1_000_000;
const UNKNOWN_BYTES_MAX: usize = 4 << 10;
/// A day: an instance that is heard less often is not alive in any useful sense.
const AFTER_SECONDS_MAX: u32 = 86_400;

/// The instance that a registration makes, with the registry's defaults where it says nothing.
pub fn registration(
    id: &str,
    registration: Registration,
    limits: &Limits,
) -> Result<Instance, Refusal> {
    let critical_after = registration
        .critical_after_seconds
        .unwrap_or(limits.critical_after_seconds);
    let removed_after = registration
        .removed_after_seconds
        .unwrap_or(limits.removed_after_seconds.max(critical_after));
    name("namespace", &registration.namespace)?;
    name("service", &registration.service)?;
    if let Some(sidecar) = &registration.sidecar {
        self::id("sidecar", sidecar)?;
    }
    ports(&registration.ports)?;
    labels(&registration)?;
    numbers(registration.weight, critical_after, removed_after)?;
    let unknown = serde_json::to_string(&registration.unknown).unwrap_or_default();
    if unknown.len() > UNKNOWN_BYTES_MAX {
        return Err(Refusal::too_large(format!(
            "unknown fields of {} bytes; at most {UNKNOWN_BYTES_MAX}",
            unknown.len()
        )));
    }
    Ok(Instance {
        id: id.to_owned(),
        namespace: registration.namespace,
        service: registration.service,
        ports: registration.ports,
        labels: registration.labels,
        zone: registration.zone,
        priority: registration.priority,
        weight: registration.weight,
        sidecar: registration.sidecar,
        state: registration.state,
        reported: None::<InstanceState>,
        critical_after_seconds: critical_after,
        removed_after_seconds: removed_after,
        load: None,
        unknown: registration.unknown,
    })
}

/// An id is one readable word: it stands in paths, logs and lists.
pub fn id(what: &str, id: &str) -> Result<(), Refusal> {
    let readable = id
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"/?#%\\\"'<>,".contains(&byte));
    match !id.is_empty() && id.len() <= NAME_LENGTH_MAX && readable {
        true => Ok(()),
        false => Err(Refusal::invalid(format!("{what} {id:?} is not usable"))
            .hint("1 to 253 visible ASCII characters, none of / ? # % \\ \" ' < > ,")),
    }
}

fn name(what: &str, name: &str) -> Result<(), Refusal> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    match !name.is_empty() && name.len() <= NAME_LENGTH_MAX && name.bytes().all(allowed) {
        true => Ok(()),
        false => Err(Refusal::invalid(format!("{what} {name:?} is not a name"))
            .hint("1 to 253 of a-z 0-9 - . _")),
    }
}

fn ports(ports: &[InstancePort]) -> Result<(), Refusal> {
    if ports.is_empty() || ports.len() > PORTS_MAX {
        return Err(Refusal::invalid(format!(
            "ports: {} given; 1 to {PORTS_MAX} are needed",
            ports.len()
        )));
    }
    for (index, port) in ports.iter().enumerate() {
        if !is_address(&port.address) {
            return Err(Refusal::invalid(format!(
                "ports[{index}].address: {:?} is not host:port",
                port.address
            ))
            .hint("for example 10.0.0.7:8080, [fd00::7]:8080 or cart.internal:8080"));
        }
        if port.port == Some(0) {
            return Err(Refusal::invalid(format!(
                "ports[{index}].port: 0 is not a port"
            )));
        }
    }
    Ok(())
}

/// `host:port` with a port that can be connected to.
fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let host_fits = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !host.is_empty() && host.len() <= NAME_LENGTH_MAX && host.bytes().all(allowed)
        }
    };
    host_fits
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn labels(registration: &Registration) -> Result<(), Refusal> {
    if registration.labels.len() > LABELS_MAX {
        return Err(Refusal::invalid(format!(
            "labels: {} given; at most {LABELS_MAX}",
            registration.labels.len()
        )));
    }
    let texts = registration
        .labels
        .iter()
        .flat_map(|(key, value)| [key, value])
        .chain(&registration.zone);
    for text in texts {
        if text.len() > LABEL_LENGTH_MAX || text.chars().any(char::is_control) {
            return Err(
                Refusal::invalid(format!("label or zone {text:?} is not usable")).hint(format!(
                    "at most {LABEL_LENGTH_MAX} bytes and no control characters"
                )),
            );
        }
    }
    Ok(())
}

fn numbers(weight: u32, critical: u32, removed: u32) -> Result<(), Refusal> {
    if weight > WEIGHT_MAX {
        return Err(Refusal::invalid(format!(
            "weight: {weight} is more than {WEIGHT_MAX}"
        )));
    }
    if critical == 0 || removed < critical || removed > AFTER_SECONDS_MAX {
        return Err(Refusal::invalid(format!(
            "critical_after_seconds {critical} and removed_after_seconds {removed} do not fit together"
        ))
        .hint(format!("1 ≤ critical_after_seconds ≤ removed_after_seconds ≤ {AFTER_SECONDS_MAX}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for good in ["10.0.0.7:8080", "[::1]:1", "cart.internal:65535", "a:1"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "10.0.0.7",
            "10.0.0.7:",
            ":80",
            "a:0",
            "a:65536",
            "::1:80",
            "[::1]",
            "[x]:1",
            "a b:1",
            "a:+1",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn ids_and_names_are_readable_words() {
        assert!(id("instance id", "cart-1@host:8080").is_ok());
        for bad in ["", "a b", "a/b", "a\nb", "ü", "a%2f", &"x".repeat(254)] {
            assert!(id("instance id", bad).is_err(), "{bad}");
        }
        assert!(name("service", "Cart").is_err());
    }

    #[test]
    fn every_limit_is_named() {
        let port = || InstancePort {
            address: "a:1".into(),
            port: None,
            protocol: None,
        };
        let with = |change: &dyn Fn(&mut Registration)| {
            let mut registration = Registration::new("cart", vec![port()]);
            change(&mut registration);
            super::registration("cart-1", registration, &Limits::default())
                .map_err(|refusal| refusal.detail.message)
        };
        assert!(with(&|_| {}).is_ok());
        type Change<'a> = &'a dyn Fn(&mut Registration);
        let cases: [(Change<'_>, &str); 7] = [
            (&|r| r.ports.clear(), "ports"),
            (&|r| r.ports[0].address = "x".into(), "ports[0].address"),
            (&|r| r.ports[0].port = Some(0), "ports[0].port"),
            (&|r| r.weight = 1_000_001, "weight"),
            (
                &|r| r.critical_after_seconds = Some(0),
                "critical_after_seconds",
            ),
            (
                &|r| r.removed_after_seconds = Some(1),
                "removed_after_seconds",
            ),
            (&|r| r.zone = Some("a\nb".into()), "zone"),
        ];
        for (change, word) in cases {
            let message = with(change).unwrap_err();
            assert!(message.contains(word), "{message}");
        }
    }
}

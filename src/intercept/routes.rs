//! Where packets go that tproxy has marked: to this host's own sockets, whatever their addresses say. By policy routes, which
//! the program `ip` sets.

use super::error::InterceptError;
use super::host::has_ipv6;
use super::program;

/// On packets that belong to one of the proxy's sockets although their destination is not this host.
pub const LOCAL_MARK: u32 = 0x539;

/// On connections that the proxy opens to the application in a client's name.
pub const APPLICATION_MARK: u32 = 0x53a;

/// The routing table that delivers marked packets.
pub const ROUTE_TABLE: &str = "133";

const FAMILIES: [&str; 2] = ["-4", "-6"];

/// Puts our routes in place for both families, or for none; false where they were there.
pub fn add() -> Result<bool, InterceptError> {
    let mut is_new = false;
    for family in families() {
        match add_to(family) {
            Ok(added) => is_new |= added,
            Err(error) => {
                if is_new {
                    // As well as it goes: the first failure is what is told.
                    let _ = remove();
                }
                return Err(error);
            }
        }
    }
    Ok(is_new)
}

/// Whether `add` would succeed, as far as looking tells.
pub fn rehearse() -> Result<(), InterceptError> {
    for family in families() {
        if Present::of(family)?.route == Route::Foreign {
            return Err(InterceptError::ForeignRoutes);
        }
    }
    Ok(())
}

/// The commands that would set what is not there of ours.
pub fn missing() -> Result<Vec<String>, InterceptError> {
    let mut missing = Vec::new();
    for family in families() {
        let present = Present::of(family)?;
        if !present.rule {
            let words = rule_words().join(" ");
            missing.push(format!("ip {family} rule add fwmark {words}"));
        }
        if present.route != Route::Ours {
            missing.push(format!(
                "ip {family} route add local default dev lo table {ROUTE_TABLE}"
            ));
        }
    }
    Ok(missing)
}

/// Takes our routes away; false where there were none. Without the program nobody has set any.
pub fn remove() -> Result<bool, InterceptError> {
    let mut was_there = false;
    for family in families() {
        match Present::of(family) {
            Ok(present) => {
                was_there |= present.rule || present.route == Route::Ours;
                present.remove(family)?;
            }
            Err(InterceptError::Missing { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(was_there)
}

fn add_to(family: &str) -> Result<bool, InterceptError> {
    let present = Present::of(family)?;
    match present.route {
        Route::Foreign => return Err(InterceptError::ForeignRoutes),
        Route::Ours => {}
        Route::None => change(
            family,
            "route add local default dev lo table",
            &[ROUTE_TABLE],
        )?,
    }
    if !present.rule {
        change(family, "rule add fwmark", &rule_words())?;
    }
    Ok(!present.rule || present.route == Route::None)
}

/// What one family has of ours.
struct Present {
    rule: bool,
    route: Route,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route {
    None,
    Ours,
    Foreign,
}

impl Present {
    fn of(family: &str) -> Result<Present, InterceptError> {
        let rules = program::run("ip", &[family, "rule", "show"], "")?;
        let routes = match program::run("ip", &[family, "route", "show", "table", ROUTE_TABLE], "")
        {
            Err(error) if error.to_string().contains("does not exist") => String::new(),
            shown => shown?,
        };
        Ok(Present {
            rule: has_rule(&rules),
            route: route(&routes),
        })
    }

    fn remove(&self, family: &str) -> Result<(), InterceptError> {
        if self.rule {
            change(family, "rule del fwmark", &rule_words())?;
        }
        if self.route == Route::Ours {
            change(
                family,
                "route del local default dev lo table",
                &[ROUTE_TABLE],
            )?;
        }
        Ok(())
    }
}

fn rule_words() -> [&'static str; 3] {
    // The mark in the words of `ip rule show`.
    ["0x539", "lookup", ROUTE_TABLE]
}

fn has_rule(shown: &str) -> bool {
    let words = format!("fwmark {}", rule_words().join(" "));
    shown.lines().any(|line| line.contains(&words))
}

fn route(shown: &str) -> Route {
    let mut lines = shown.lines().filter(|line| !line.trim().is_empty());
    let is_ours = |line: &str| line.starts_with("local default dev lo");
    match (lines.next(), lines.next()) {
        (None, _) => Route::None,
        (Some(only), None) if is_ours(only) => Route::Ours,
        _ => Route::Foreign,
    }
}

fn change(family: &str, words: &str, rest: &[&str]) -> Result<(), InterceptError> {
    let words = words.split_whitespace();
    let arguments: Vec<&str> = [family]
        .into_iter()
        .chain(words)
        .chain(rest.iter().copied())
        .collect();
    program::run("ip", &arguments, "").map(drop)
}

fn families() -> impl Iterator<Item = &'static str> {
    let has_ipv6 = has_ipv6();
    FAMILIES
        .into_iter()
        .filter(move |family| *family == "-4" || has_ipv6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_rule_and_route_are_known_among_others() {
        let rules = "0:\tfrom all lookup local\n32765:\tfrom all fwmark 0x539 lookup 133\n32766:\tfrom all lookup main\n";
        assert!(has_rule(rules));
        assert!(!has_rule("32765:\tfrom all fwmark 0x53 lookup 133\n"));
        assert_eq!(route(""), Route::None);
        assert_eq!(route("local default dev lo scope host \n"), Route::Ours);
        assert_eq!(
            route("local default dev lo metric 1024 pref medium\n"),
            Route::Ours
        );
        assert_eq!(route("default via 10.0.0.1 dev eth0\n"), Route::Foreign);
        let more = "local default dev lo scope host\n10.0.0.0/8 dev eth0\n";
        assert_eq!(route(more), Route::Foreign);
    }

    #[test]
    fn the_mark_is_written_as_the_program_shows_it() {
        assert_eq!(rule_words()[0], format!("{LOCAL_MARK:#x}"));
    }
}

//! Our nftables table as text: written, replaced, taken away, and read back.
//!
//! One table, `inet pillion`, replaced as a whole in one transaction, so that rules are never half there and those of others
//! are never touched. The last statement of each chain carries a comment that says what the chain is, so that a later
//! `check` or `remove`, which is told nothing, knows.

/// The name of our table in the `inet` family.
pub const TABLE: &str = "pillion";

const APPLIED: &str = "pillion applied ";
const DRAINING: &str = "pillion draining ";

/// A base chain: its name and where it hooks in.
pub struct Base {
    name: &'static str,
    hook: &'static str,
    priority: i32,
}

/// Before the rules of others (-100), which would otherwise send a connection elsewhere first.
pub const OUTBOUND: Base = Base {
    name: "outbound",
    hook: "output",
    priority: -110,
};

/// After the rules of others (-100): a port that a container engine publishes on this host stays its own.
pub const INBOUND: Base = Base {
    name: "inbound",
    hook: "prerouting",
    priority: -90,
};

impl Base {
    pub fn chain(&self, statements: &[String]) -> String {
        let Base {
            name,
            hook,
            priority,
        } = self;
        let body: String = statements
            .iter()
            .map(|statement| format!("\t\t{statement}\n"))
            .collect();
        format!(
            "\tchain {name} {{\n\t\ttype nat hook {hook} priority {priority}; policy accept;\n{body}\t}}\n"
        )
    }
}

/// The statement that sends a connection to the proxy.
pub fn redirect(port: u16, fingerprint: &str) -> String {
    format!(
        "meta l4proto tcp redirect to :{port} comment \"{APPLIED}port={port} rules={fingerprint}\""
    )
}

/// The statement that sends name queries to the proxy. Its port is among those that a removal waits for.
pub fn redirect_queries(port: u16) -> String {
    format!(
        "meta l4proto {{ tcp, udp }} th dport 53 redirect to :{port} comment \"{APPLIED}port={port}\""
    )
}

/// The text for `nft -f -` that puts these chains in place of whatever the table held.
pub fn replace(chains: &str) -> String {
    format!("{}table inet {TABLE} {{\n{chains}}}\n", removing())
}

/// The text that takes the table away. The first line makes the second succeed where there is no table.
pub fn removing() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// The text that stops redirecting new connections and keeps those alive that were redirected: taking the table away
/// takes the kernel's address translation from under them, which resets every one.
pub fn draining(proxy_ports: &[u16]) -> String {
    let accepts: Vec<String> = proxy_ports
        .iter()
        .map(|port| format!("ct state new accept comment \"{DRAINING}port={port}\""))
        .collect();
    replace(&(OUTBOUND.chain(&accepts) + &INBOUND.chain(&accepts)))
}

/// What a listing of our table says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listed {
    /// Rules that redirect.
    Applied {
        proxy_ports: Vec<u16>,
        fingerprint: String,
    },
    /// Nothing new is redirected; what was redirected before may still live.
    Draining { proxy_ports: Vec<u16> },
    /// A table of this name with nothing in it.
    Empty,
    /// A table of this name that we did not write.
    Foreign,
}

impl Listed {
    /// Reads the output of `nft list table inet pillion`.
    pub fn parse(listing: &str) -> Listed {
        let comments: Vec<&str> = listing.lines().filter_map(comment).collect();
        let applied = facts(&comments, APPLIED);
        let draining = facts(&comments, DRAINING);
        if let Some(fingerprint) = applied.iter().find_map(|fact| fact.strip_prefix("rules=")) {
            return Listed::Applied {
                proxy_ports: ports(&applied),
                fingerprint: fingerprint.to_owned(),
            };
        }
        if !draining.is_empty() {
            let proxy_ports = ports(&draining);
            return Listed::Draining { proxy_ports };
        }
        // Beyond the line that opens the table and the one that closes it there is somebody's content.
        match listing
            .lines()
            .filter(|line| !line.trim().is_empty())
            .count()
        {
            0..=2 => Listed::Empty,
            _ => Listed::Foreign,
        }
    }
}

fn comment(line: &str) -> Option<&str> {
    line.split_once("comment \"")?.1.split('"').next()
}

/// The words of all comments that begin so.
fn facts<'a>(comments: &[&'a str], beginning: &str) -> Vec<&'a str> {
    comments
        .iter()
        .filter_map(|comment| comment.strip_prefix(beginning))
        .flat_map(str::split_whitespace)
        .collect()
}

fn ports(facts: &[&str]) -> Vec<u16> {
    let mut ports: Vec<u16> = facts
        .iter()
        .filter_map(|fact| fact.strip_prefix("port=")?.parse().ok())
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applied_rules_are_read_back() {
        let listing = format!(
            "table inet pillion {{\n\tchain outbound {{\n\t\t{}\n\t\t{}\n\t}}\n\tchain inbound {{\n\t\t{}\n\t}}\n}}\n",
            redirect_queries(15053),
            redirect(15001, "0badcafe"),
            redirect(15006, "0badcafe"),
        );
        let expected = Listed::Applied {
            proxy_ports: vec![15001, 15006, 15053],
            fingerprint: "0badcafe".to_owned(),
        };
        assert_eq!(Listed::parse(&listing), expected);
    }

    #[test]
    fn draining_rules_are_read_back_with_their_ports() {
        let expected = Listed::Draining {
            proxy_ports: vec![15001, 15006],
        };
        assert_eq!(Listed::parse(&draining(&[15001, 15006])), expected);
    }

    #[test]
    fn a_table_of_somebody_else_is_known_as_such() {
        let listing = "table inet pillion {\n\tchain x {\n\t\tcomment \"mine\"\n\t}\n}\n";
        assert_eq!(Listed::parse(listing), Listed::Foreign);
        assert_eq!(Listed::parse("table inet pillion {\n}\n"), Listed::Empty);
    }

    #[test]
    fn draining_accepts_and_redirects_nothing() {
        let expected = "\
table inet pillion
delete table inet pillion
table inet pillion {
\tchain outbound {
\t\ttype nat hook output priority -110; policy accept;
\t\tct state new accept comment \"pillion draining port=15001\"
\t}
\tchain inbound {
\t\ttype nat hook prerouting priority -90; policy accept;
\t\tct state new accept comment \"pillion draining port=15001\"
\t}
}
";
        assert_eq!(draining(&[15001]), expected);
    }
}

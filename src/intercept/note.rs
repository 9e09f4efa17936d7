//! What our rules say about themselves: a comment on the last statement of each chain, so that a later `check` or `remove`,
//! which is told nothing, knows. Every backend writes the same words.

const APPLIED: &str = "pillion applied ";
const DRAINING: &str = "pillion draining ";
const TPROXY: &str = "tproxy";

/// What taking rules away has to know of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The ports that connections are sent to.
    pub proxy_ports: Vec<u16>,
    /// Inbound connections keep their addresses and are delivered by routes of our own.
    pub tproxy: bool,
}

/// What a backend holds under our name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listed {
    /// Rules that redirect.
    Applied { facts: Facts, fingerprint: String },
    /// Nothing new is redirected; what was redirected before may still live.
    Draining(Facts),
    /// Our name with nothing in it.
    Empty,
    /// Our name, and rules that we did not write.
    Foreign,
}

impl Listed {
    /// By the comments of all rules there; None where no comment is ours.
    pub fn read<'a>(comments: impl Iterator<Item = &'a str>) -> Option<Listed> {
        let comments: Vec<&str> = comments.collect();
        let applied = words(&comments, APPLIED);
        let draining = words(&comments, DRAINING);
        if let Some(fingerprint) = applied.iter().find_map(|word| word.strip_prefix("rules=")) {
            return Some(Listed::Applied {
                facts: facts(&applied),
                fingerprint: fingerprint.to_owned(),
            });
        }
        (!draining.is_empty()).then(|| Listed::Draining(facts(&draining)))
    }

    /// Of rules that we wrote.
    pub fn facts(&self) -> Option<&Facts> {
        match self {
            Listed::Applied { facts, .. } | Listed::Draining(facts) => Some(facts),
            Listed::Empty | Listed::Foreign => None,
        }
    }
}

/// The comment of a rule that sends connections to this port.
pub fn applied(port: u16, tproxy: bool, fingerprint: &str) -> String {
    let mode = mode(tproxy);
    format!("{APPLIED}port={port}{mode} rules={fingerprint}")
}

/// The comment of a rule that sends name queries to this port.
pub fn applied_to_names(port: u16) -> String {
    format!("{APPLIED}port={port}")
}

/// The comment of a rule that lets the connections to this port live.
pub fn draining(port: u16, tproxy: bool) -> String {
    format!("{DRAINING}port={port}{}", mode(tproxy))
}

fn mode(tproxy: bool) -> String {
    match tproxy {
        true => format!(" {TPROXY}"),
        false => String::new(),
    }
}

/// The words of all comments that begin so.
fn words<'a>(comments: &[&'a str], beginning: &str) -> Vec<&'a str> {
    comments
        .iter()
        .filter_map(|comment| comment.strip_prefix(beginning))
        .flat_map(str::split_whitespace)
        .collect()
}

fn facts(words: &[&str]) -> Facts {
    let mut proxy_ports: Vec<u16> = words
        .iter()
        .filter_map(|word| word.strip_prefix("port=")?.parse().ok())
        .collect();
    proxy_ports.sort_unstable();
    proxy_ports.dedup();
    Facts {
        proxy_ports,
        tproxy: words.contains(&TPROXY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(comments: &[String]) -> Option<Listed> {
        Listed::read(comments.iter().map(String::as_str))
    }

    #[test]
    fn what_was_written_is_read_back() {
        let facts = Facts {
            proxy_ports: vec![15001, 15006],
            tproxy: true,
        };
        let comments = [
            applied(15006, true, "0badcafe"),
            applied(15001, false, "0badcafe"),
        ];
        assert_eq!(
            read(&comments),
            Some(Listed::Applied {
                facts: facts.clone(),
                fingerprint: "0badcafe".to_owned()
            })
        );
        let comments = [draining(15001, true), draining(15006, true)];
        assert_eq!(read(&comments), Some(Listed::Draining(facts)));
    }

    #[test]
    fn comments_of_others_say_nothing() {
        assert_eq!(read(&["mine".to_owned(), "pillion".to_owned()]), None);
        assert_eq!(read(&[]), None);
    }
}

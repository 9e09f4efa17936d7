//! iptables, where nftables is missing: chains of our own, asked for and replaced by running the `-save` and `-restore` programs
//! of each family. A table changes in one transaction; where the second family or table fails, the first is put back.

mod ours;
mod text;

use super::error::InterceptError;
use super::host::has_ipv6;
use super::note::{Facts, Listed};
use super::program;
use super::rules::Rules;
use ours::Ours;
use text::Family;

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// Waits this many seconds for others who change rules at the same time.
const RESTORE: [&str; 3] = ["--noflush", "-w", "5"];

/// Our chains as they are; None when there are none.
pub fn listed() -> Result<Option<Listed>, InterceptError> {
    let mut listed = Vec::new();
    for family in families() {
        listed.push(saved(family)?.listed());
    }
    Ok(both(listed))
}

/// What the families hold together. Where they differ somebody interfered: then it is nobody's rules in full.
fn both(mut listed: Vec<Option<Listed>>) -> Option<Listed> {
    if listed.contains(&Some(Listed::Foreign)) {
        return Some(Listed::Foreign);
    }
    let is_same = listed.windows(2).all(|pair| pair[0] == pair[1]);
    listed.sort_by_key(|listed| !matches!(listed, Some(Listed::Applied { .. })));
    match listed.into_iter().flatten().next() {
        Some(Listed::Applied { facts, .. }) if !is_same => Some(Listed::Applied {
            facts,
            fingerprint: "partly".to_owned(),
        }),
        first => first,
    }
}

/// Puts exactly these rules in place.
pub fn apply(rules: &Rules) -> Result<(), InterceptError> {
    change(|family| text::applying(rules, family))
}

/// Whether `apply` is likely to succeed: the programs are there and understand the rules. The kernel is asked only when they are
/// applied.
pub fn rehearse(rules: &Rules) -> Result<(), InterceptError> {
    for family in families() {
        let text = text::applying(rules, family).in_place_of(&saved(family)?);
        restore(family, &[&RESTORE[..], &["--test"]].concat(), &text)?;
    }
    Ok(())
}

/// Redirects nothing new and keeps what was redirected alive.
pub fn drain(facts: &Facts) -> Result<(), InterceptError> {
    change(|family| text::draining(facts, family))
}

/// Takes everything of ours away.
pub fn clear() -> Result<(), InterceptError> {
    change(|_| Ours::default())
}

/// The text for `iptables-restore` and `ip6tables-restore` that puts these rules where none of ours are.
pub fn applying(rules: &Rules) -> String {
    let sections = FAMILIES.map(|family| {
        let command = format!("{} {}", restore_program(family), RESTORE[0]);
        let text = text::applying(rules, family).in_place_of(&Ours::default());
        format!("# {command}\n{text}")
    });
    sections.join("\n")
}

/// Puts the wanted state in place in every family, or in none.
fn change(wanted: impl Fn(Family) -> Ours) -> Result<(), InterceptError> {
    let mut changed = Vec::new();
    for family in families() {
        let before = saved(family)?;
        let text = wanted(family).in_place_of(&before);
        changed.push((family, before));
        if let Err(error) = restore(family, &RESTORE, &text) {
            put_back(&changed);
            return Err(error);
        }
    }
    Ok(())
}

/// As well as it goes: what made the change fail may make this fail too, and that first failure is what is told.
fn put_back(changed: &[(Family, Ours)]) {
    for (family, before) in changed {
        if let Ok(now) = saved(*family) {
            let _ = restore(*family, &RESTORE, &before.in_place_of(&now));
        }
    }
}

fn families() -> impl Iterator<Item = Family> {
    let has_ipv6 = has_ipv6();
    FAMILIES
        .into_iter()
        .filter(move |family| *family == Family::Ipv4 || has_ipv6)
}

fn saved(family: Family) -> Result<Ours, InterceptError> {
    let program = match family {
        Family::Ipv4 => "iptables-save",
        Family::Ipv6 => "ip6tables-save",
    };
    let text = program::run(program, &[], "")?;
    Ok(Ours::read(&text))
}

fn restore(family: Family, arguments: &[&str], text: &str) -> Result<(), InterceptError> {
    if text.is_empty() {
        return Ok(());
    }
    program::run(restore_program(family), arguments, text).map(drop)
}

fn restore_program(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "iptables-restore",
        Family::Ipv6 => "ip6tables-restore",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_one_family_has_lost_are_not_in_place() {
        let applied = |fingerprint: &str| Listed::Applied {
            facts: Facts::default(),
            fingerprint: fingerprint.to_owned(),
        };
        let whole = Some(applied("0badcafe"));
        let partly = Some(applied("partly"));
        assert_eq!(both(vec![whole.clone(), whole.clone()]), whole);
        assert_eq!(both(vec![whole.clone()]), whole);
        assert_eq!(both(vec![None, whole.clone()]), partly);
        assert_eq!(both(vec![Some(Listed::Empty), whole.clone()]), partly);
        assert_eq!(both(vec![None, None]), None);
        let foreign = Some(Listed::Foreign);
        assert_eq!(both(vec![whole, foreign.clone()]), foreign);
    }
}

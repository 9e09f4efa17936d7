//! The page `/lanes`: what stands in front of the application and of services that are called, who waits, and what was refused.

use std::collections::BTreeMap;

use serde::Serialize;

/// The lane of a service whose application is beside this proxy, or of one that is called from here.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct LaneView {
    /// `namespace/name`, and ` (outbound)` where it is called from here.
    pub service: String,
    /// Requests that the application gets at once, at this moment.
    pub limit: u32,
    pub in_flight: u32,
    /// Requests that wait, by class.
    pub queued: BTreeMap<&'static str, usize>,
    /// The least important class that callers are told to send; null is all.
    pub admits: Option<&'static str>,
    /// The discipline in effect.
    pub discipline: &'static str,
    /// As it is configured.
    pub configured: &'static str,
    /// How often `auto` has changed it.
    pub switches: u64,
    /// Why `auto` last changed it; null where it has not.
    pub why: Option<String>,
    /// Since the process began.
    pub admitted: u64,
    /// The same, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

const COLUMNS: [&str; 8] = [
    "SERVICE",
    "DISCIPLINE",
    "LIMIT",
    "IN-FLIGHT",
    "QUEUED",
    "ADMITS",
    "ADMITTED",
    "REFUSED",
];

/// One line a lane.
pub(super) fn table(lanes: &[LaneView]) -> String {
    if lanes.is_empty() {
        return "no lanes\n".to_owned();
    }
    let rows: Vec<[String; 8]> = lanes.iter().map(row).collect();
    let mut widths = COLUMNS.map(str::len);
    for cells in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = String::new();
    for cells in [COLUMNS.map(String::from)].iter().chain(&rows) {
        let cells = cells.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(lane: &LaneView) -> [String; 8] {
    let waits = lane
        .queued
        .iter()
        .map(|(class, count)| (*class, *count as u64));
    let refused = lane.refused.iter().map(|(reason, count)| (*reason, *count));
    [
        lane.service.clone(),
        discipline(lane),
        lane.limit.to_string(),
        lane.in_flight.to_string(),
        parts(waits),
        lane.admits.unwrap_or("all").to_owned(),
        lane.admitted.to_string(),
        parts(refused),
    ]
}

/// `mlfq`, or `mlfq (auto)` where that was chosen for it.
fn discipline(lane: &LaneView) -> String {
    match lane.configured == lane.discipline {
        true => lane.discipline.to_owned(),
        false => format!("{} ({})", lane.discipline, lane.configured),
    }
}

/// `7 (batch 5, default 2)`, or `0`.
fn parts(counts: impl Iterator<Item = (&'static str, u64)>) -> String {
    let counts: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    let named: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    match total {
        0 => "0".to_owned(),
        total => format!("{total} ({})", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_waits_and_why_others_were_refused() {
        let text = table(&[LaneView {
            service: "default/orders".into(),
            limit: 16,
            in_flight: 16,
            queued: [("default", 2), ("batch", 5), ("critical", 0)].into(),
            admits: Some("default"),
            discipline: "mlfq",
            configured: "auto",
            switches: 1,
            why: Some("17 wait for 16 slots".into()),
            admitted: 1_000,
            refused: [("full", 3)].into(),
        }]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0].find("QUEUED"),
            lines[1].find("7 (batch 5, default 2)")
        );
        assert!(lines[1].contains("  mlfq (auto)  16 "), "{text}");
        assert!(lines[1].contains("  default  1000 "), "{text}");
        assert!(lines[1].ends_with("1000      3 (full 3)"), "{text}");
    }

    #[test]
    fn no_lanes_are_said_in_words() {
        assert_eq!(table(&[]), "no lanes\n");
    }
}

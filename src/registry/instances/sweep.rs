//! Once a second: marks what has fallen silent, removes what is gone, asks before it removes too much.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::expiry::{self, Probe, Removals, Silence, Verdict};
use super::probe;
use crate::api::InstanceState;
use crate::model::Name;
use crate::registry::view::{Entry, Known, State};
use crate::registry::{Refusal, Registry, keys};
use crate::store::{Compare, Operation, Txn};

/// A sweep later than this means that the process was stopped or starved; the instances are not to blame.
const LATE: Duration = Duration::from_secs(3);
/// A service without instances is forgotten after this long.
const EMPTY_KEPT: Duration = Duration::from_secs(3_600);
/// Someone heard within this long shows that the registry is not cut off.
const CONTACT: Duration = Duration::from_secs(15);
/// Instances of one transaction.
const TOGETHER: usize = 100;

/// What a look over all instances finds.
#[derive(Default)]
struct Findings {
    /// Silent, and not `critical` yet.
    critical: Vec<Arc<str>>,
    gone: BTreeMap<Name, Vec<Arc<str>>>,
    forgotten: Vec<Name>,
    /// Someone was heard lately.
    contact: bool,
}

impl Registry {
    /// Called each second; `now` is given so that a test can be in the future.
    pub async fn sweep(&self, now: Instant) {
        self.forgive(now);
        let findings = look(&self.view.state(), now);
        self.mark_critical(&findings.critical).await;
        let mut questionable = Vec::new();
        for (service, due) in findings.gone {
            if self.may_vanish(&service, due.len(), now) {
                self.remove_silent(&service, &due, now).await;
            } else {
                questionable.extend(due);
            }
        }
        if !questionable.is_empty() {
            self.probe_and_remove(&questionable, findings.contact, now)
                .await;
        }
        for service in findings.forgotten {
            self.forget(&service).await;
        }
        // The sweep's own work is not time in which nobody could be heard.
        let mut sweep = self.instances.sweep();
        sweep.last = now.max(Instant::now());
    }

    /// Time in which this process did not run does not count as anyone's silence.
    fn forgive(&self, now: Instant) {
        let mut sweep = self.instances.sweep();
        let slept = now.saturating_duration_since(sweep.last);
        sweep.last = now;
        sweep
            .removals
            .retain(|_, removals| now.saturating_duration_since(removals.began) < EMPTY_KEPT);
        drop(sweep);
        if slept > LATE {
            warn!(
                slept_seconds = slept.as_secs(),
                "The registry did not run for a while; silence in that time is forgiven"
            );
            for known in self.view.state().instances.values_mut() {
                known.heard = (known.heard + slept).min(now);
            }
        }
    }

    async fn mark_critical(&self, ids: &[Arc<str>]) {
        for ids in ids.chunks(TOGETHER) {
            let marked =
                futures_util::future::join_all(ids.iter().map(|id| self.mark_one_critical(id)))
                    .await;
            let failed = marked.iter().filter(|marked| marked.is_err()).count();
            if failed > 0 {
                warn!(
                    failed,
                    "Some silent instances could not be marked critical; the next sweep tries again"
                );
            }
        }
    }

    async fn mark_one_critical(&self, id: &str) -> Result<(), Refusal> {
        let _writing = self.instances.writing(id).await;
        let Some(mut seen) = self.seen(id) else {
            return Ok(());
        };
        if seen.instance.reported.is_none() {
            seen.instance.reported = Some(seen.instance.state);
        }
        seen.instance.state = InstanceState::Critical;
        info!(instance = id, service = %seen.service, "Silent: critical");
        self.replace(id, seen).await.map(drop)
    }

    fn may_vanish(&self, service: &Name, due: usize, now: Instant) -> bool {
        let (total, span) = {
            let view = self.view.state();
            let Some(set) = view.services.get(service) else {
                return true;
            };
            let spans = set
                .entries
                .values()
                .map(|entry| entry.removed_after_seconds);
            (set.entries.len(), seconds(spans.max().unwrap_or_default()))
        };
        let mut sweep = self.instances.sweep();
        let removals = sweep
            .removals
            .entry(service.clone())
            .or_insert(Removals::new(now, total));
        if now.saturating_duration_since(removals.began) >= span {
            *removals = Removals::new(now, total);
        }
        let allowed = removals.allows(due, total);
        if allowed {
            removals.removed += due;
        }
        allowed
    }

    async fn probe_and_remove(&self, ids: &[Arc<str>], contact: bool, now: Instant) {
        let targets = self.targets(ids);
        let probes = probe::all(targets).await;
        let contact = contact || probes.iter().any(|(_, probe)| *probe != Probe::Silent);
        for (id, probe) in probes {
            self.settle(&id, probe, contact, now).await;
        }
    }

    fn targets(&self, ids: &[Arc<str>]) -> Vec<(Arc<str>, Vec<String>)> {
        let view = self.view.state();
        let addresses = |id: &Arc<str>| {
            let (_, entry) = view.find(id)?;
            let ports = entry.instance(None)?.ports;
            Some((
                id.clone(),
                ports.into_iter().map(|port| port.address).collect(),
            ))
        };
        ids.iter().filter_map(addresses).collect()
    }

    async fn settle(&self, id: &Arc<str>, probe: Probe, contact: bool, now: Instant) {
        let (service, verdict) = {
            let mut view = self.view.state();
            let Some((known, entry)) = view.find(id) else {
                return;
            };
            let span = seconds(entry.removed_after_seconds);
            let silent = now.saturating_duration_since(known.heard);
            let verdict = expiry::verdict(probe, silent, span, !contact);
            let service = known.service.clone();
            if let (Verdict::Keep, Some(known)) = (verdict, view.instances.get_mut(id)) {
                known.held_until = Some(now + span);
            }
            (service, verdict)
        };
        match verdict {
            Verdict::Keep => {
                warn!(instance = %id, %service, ?probe, "Silent, but kept: too many of its service are, and a probe did not find it gone")
            }
            Verdict::Remove => {
                self.remove_silent(&service, std::slice::from_ref(id), now)
                    .await
            }
        }
    }

    /// Removes instances unless they were heard in the meantime.
    async fn remove_silent(&self, service: &Name, ids: &[Arc<str>], now: Instant) {
        for ids in ids.chunks(TOGETHER) {
            let mut txn = Txn::default();
            {
                let view = self.view.state();
                let still = ids.iter().filter_map(|id| {
                    let (known, entry) = view.find(id)?;
                    let gone =
                        judge(known, entry, now) == Silence::Gone && known.service == *service;
                    gone.then_some((keys::instance(service, id), entry.modified))
                });
                for (key, modified) in still {
                    txn.compares.push(Compare::Modified(
                        key.clone(),
                        std::cmp::Ordering::Equal,
                        modified,
                    ));
                    txn.then.push(Operation::Delete(key));
                }
            }
            if txn.then.is_empty() {
                continue;
            }
            txn.then.push(Operation::put(keys::gone(service), ""));
            match self.store.txn(txn).await {
                Ok(outcome) if outcome.succeeded => {
                    let _ = self.view.reached(outcome.revision).await;
                    info!(%service, instances = ids.len(), "Silent for too long: removed");
                }
                Ok(_) => {}
                Err(error) => {
                    warn!(%service, %error, "Silent instances could not be removed; the next sweep tries again")
                }
            }
        }
    }

    async fn forget(&self, service: &Name) {
        let txn = Txn::of(vec![Operation::Delete(keys::gone(service))]);
        if let Err(error) = self.store.txn(txn).await {
            warn!(%service, %error, "An empty service could not be forgotten; the next sweep tries again");
        }
    }
}

fn look(state: &State, now: Instant) -> Findings {
    let mut findings = Findings::default();
    for (id, known) in &state.instances {
        findings.contact |= now.saturating_duration_since(known.heard) < CONTACT;
        let entry = state
            .services
            .get(&known.service)
            .and_then(|set| set.entries.get(id));
        let Some(entry) = entry else { continue };
        match judge(known, entry, now) {
            Silence::Alive => {}
            Silence::Gone => findings
                .gone
                .entry(known.service.clone())
                .or_default()
                .push(id.clone()),
            Silence::Critical if entry.state == InstanceState::Critical => {}
            Silence::Critical => findings.critical.push(id.clone()),
        }
    }
    let forgotten = state.services.iter().filter(|(_, set)| {
        set.entries.is_empty()
            && set
                .emptied
                .is_some_and(|since| now.saturating_duration_since(since) > EMPTY_KEPT)
    });
    findings.forgotten = forgotten.map(|(service, _)| service.clone()).collect();
    findings
}

fn judge(known: &Known, entry: &Entry, now: Instant) -> Silence {
    let silent = now.saturating_duration_since(known.heard);
    let held = known.held_until.is_some_and(|until| until > now);
    expiry::silence(
        silent,
        seconds(entry.critical_after_seconds),
        seconds(entry.removed_after_seconds),
        held,
    )
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}

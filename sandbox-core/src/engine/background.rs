//! The background work: round after round, read the store, read the host, plan, repair.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::Mutex;

use crate::{
    clock::Timestamp,
    engine::{Inner, errors, later, repair::Planned},
    error::Error,
    host::HostReport,
    id::{SandboxId, TemplateId},
    operation::Operation,
    planted::{self, Bug, planted},
    reconcile::{About, HostView, note_unknown, note_unknown_images, plan},
    sandbox::{PageRequest, SandboxFilter, SandboxRecord},
    template::{TemplateFilter, TemplatePageRequest, TemplateRecord},
};

/// The pause after a round that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// The longest wait for a host's report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// What rounds remember of one another. Holding it is the right to make a round.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    unknown_since: BTreeMap<SandboxId, Timestamp>,
    unknown_images_since: BTreeMap<TemplateId, Timestamp>,
    swept_at: Option<Timestamp>,
}

/// What a round found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round {
    /// The host's sequence in the report.
    pub(super) sequence: u64,
    /// Repairs that were begun.
    pub(super) actions: usize,
    /// When there is something to do even if nothing happens.
    next_due: Option<Timestamp>,
}

impl Inner {
    /// Settles what an earlier engine left behind.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<(), Error> {
        self.round(self.config.sole_owner).await.map(drop)
    }

    /// Rounds until the engine stops.
    pub(super) async fn background(self: &Arc<Self>) {
        while !self.stopping() {
            let pause = match self.round(false).await {
                Ok(round) => self.wait_for_work(round).await,
                Err(error) => {
                    tracing::warn!(%error, "reconciling failed; trying again");
                    FAILURE_PAUSE
                }
            };
            tokio::select! {
                biased;
                () = self.stopped() => {}
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    /// Returns when there may be something to do, with the pause before looking.
    async fn wait_for_work(&self, round: Round) -> Duration {
        let now = self.now();
        let wait = round
            .next_due
            .map_or(self.config.round_max, |due| {
                due.signed_duration_since(now).to_std().unwrap_or_default()
            })
            .min(self.config.round_max)
            .max(self.config.round_min);
        let patience = match planted(Bug::NoPolling) {
            true => Duration::MAX / 4,
            false => wait,
        };
        tokio::select! {
            biased;
            changed = self.host.changed(round.sequence, patience) => {
                if let Err(error) = changed {
                    tracing::warn!(%error, "the host does not tell its changes");
                    return FAILURE_PAUSE;
                }
            }
            // A host that waits longer than it was asked to delays no deadline.
            () = self.clock.sleep(wait), if !planted(Bug::NoPolling) => return Duration::ZERO,
            () = self.nudge.notified() => {}
            () = self.stopped() => return Duration::ZERO,
        }
        self.config.round_min
    }

    /// One round. With `disown`, operations that are not at work here count as abandoned.
    pub(super) async fn round(self: &Arc<Self>, disown: bool) -> Result<Round, Error> {
        let mut memory = self.rounds.memory.lock().await;
        // Templates, sandboxes, the host, in this order: see `reconcile`.
        let early = match planted(Bug::HostBeforeStore) {
            true => Some(self.report().await?),
            false => None,
        };
        let mut templates = self.all_templates_there_are().await?;
        let mut records = self.all_records().await?;
        let report = match early {
            Some(report) => report,
            None => self.report().await?,
        };
        let now = self.now();
        let operations = records.iter_mut().filter_map(|r| r.operation.as_mut());
        self.note_owners(operations, disown, now);
        let operations = templates.iter_mut().filter_map(|t| t.operation.as_mut());
        self.note_owners(operations, disown, now);
        if planted(Bug::NoPreMark) {
            records.iter_mut().for_each(planted::without_mark);
        }
        memory.unknown_since = note_unknown(&memory.unknown_since, &records, &report, now);
        memory.unknown_images_since = note_unknown_images(
            &memory.unknown_images_since,
            &templates,
            &report.images,
            now,
        );
        if let Err(error) = self.measure_minimal(&templates, &report).await {
            tracing::warn!(%error, "the size of `minimal` not noted");
        }
        let view = HostView {
            report: &report,
            unknown_since: &memory.unknown_since,
            unknown_images_since: &memory.unknown_images_since,
            unknown_grace: match planted(Bug::OrphanWithoutGrace) {
                true => Duration::ZERO,
                false => self.config.unknown_grace,
            },
        };
        let actions = plan(&records, &templates, &view, now);
        let next_due = self.next_due(&records, &templates, &memory);
        let records: BTreeMap<SandboxId, SandboxRecord> = records
            .into_iter()
            .map(|record| (record.id, record))
            .collect();
        let templates: BTreeMap<TemplateId, TemplateRecord> = templates
            .into_iter()
            .map(|record| (record.id, record))
            .collect();
        for action in &actions {
            let about = action.about();
            tracing::info!(%about, %action, "reconciling");
            let planned = match about {
                About::Sandbox(id) => records.get(&id).map(Planned::Sandbox),
                About::Template(id) => templates.get(&id).map(Planned::Template),
            };
            let planned = planned.unwrap_or(Planned::Nothing);
            if let Err(error) = self.repair(action, planned).await {
                tracing::warn!(%about, %action, %error, "not repaired yet");
            }
        }
        self.sweep(&mut memory.swept_at, now).await;
        Ok(Round {
            sequence: report.sequence,
            actions: actions.len(),
            next_due,
        })
    }

    /// The host's report. One that hangs must not end the reconciling of everything else.
    pub(super) async fn report(&self) -> Result<HostReport, Error> {
        tokio::select! {
            biased;
            report = self.host.list_sandboxes() => report.map_err(errors::from_host),
            () = self.clock.sleep(REPORT_TIMEOUT) => Err(Error::Unavailable(format!(
                "the host gave no report within {} s",
                REPORT_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn all_records(&self) -> Result<Vec<SandboxRecord>, Error> {
        let mut records = Vec::new();
        let mut page = PageRequest {
            after: None,
            limit: PageRequest::LIMIT_MAX,
        };
        loop {
            let part = self
                .store
                .list_sandboxes(&SandboxFilter::default(), page)
                .await
                .map_err(errors::from_store)?;
            records.extend(part.items);
            match part.next {
                Some(next) => page.after = Some(next),
                None => return Ok(records),
            }
        }
    }

    async fn all_templates_there_are(&self) -> Result<Vec<TemplateRecord>, Error> {
        let filter = TemplateFilter {
            all_states: true,
            ..TemplateFilter::default()
        };
        let mut records = Vec::new();
        let mut page = TemplatePageRequest {
            after: None,
            limit: PageRequest::LIMIT_MAX,
        };
        loop {
            let part = self.store.list_templates(&filter, page).await;
            let part = part.map_err(errors::from_store)?;
            records.extend(part.items);
            match part.next {
                Some(next) => page.after = Some(next),
                None => return Ok(records),
            }
        }
    }

    /// Says what this engine knows of who is at work: an operation of its own is, even where a slow
    /// store let its lease run out.
    fn note_owners<'a>(
        &self,
        operations: impl Iterator<Item = &'a mut Operation>,
        disown: bool,
        now: Timestamp,
    ) {
        for operation in operations {
            if self.flights.get(operation.id).is_some() {
                operation.lease_until = operation.lease_until.max(later(now, self.config.lease));
            } else if disown || planted(Bug::LeaseIgnored) {
                operation.lease_until = operation.lease_until.min(now);
            }
        }
    }

    fn next_due(
        &self,
        records: &[SandboxRecord],
        templates: &[TemplateRecord],
        memory: &Memory,
    ) -> Option<Timestamp> {
        let of_records = records.iter().filter_map(|record| {
            record
                .operation
                .as_ref()
                .map(|operation| operation.lease_until)
                .or(record.expires_at)
        });
        // A template that is made of a sandbox is due with that sandbox's operation.
        let of_templates = templates
            .iter()
            .filter(|record| record.origin.is_none())
            .filter_map(|record| record.operation.as_ref())
            .map(|operation| operation.lease_until);
        let machines = memory.unknown_since.values();
        let of_unknown = machines
            .chain(memory.unknown_images_since.values())
            .map(|since| later(*since, self.config.unknown_grace));
        of_records.chain(of_templates).chain(of_unknown).min()
    }

    /// Forgets operations that ended long ago, now and then.
    async fn sweep(&self, swept_at: &mut Option<Timestamp>, now: Timestamp) {
        let every = self.config.operation_retention / 24;
        if swept_at.is_some_and(|at| now < later(at, every)) {
            return;
        }
        let Ok(retention) = chrono::TimeDelta::from_std(self.config.operation_retention) else {
            return;
        };
        let Some(before) = now.checked_sub_signed(retention) else {
            return;
        };
        *swept_at = Some(now);
        if let Err(error) = self.store.remove_operations_finished_before(before).await {
            tracing::warn!(%error, "old operations not removed");
        }
    }
}

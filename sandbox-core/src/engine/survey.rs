//! What a round of the reconciler looks at: all records, then the host, in this order.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use crate::{
    build::{BuildRecord, BuildStatus},
    clock::Timestamp,
    engine::{Inner, background::Memory, errors, later, repair::Planned},
    error::Error,
    host::{HostReport, HostSeen},
    id::OperationId,
    operation::{Operation, OperationKind},
    planted::{self, Bug, planted},
    reconcile::{About, Heard, Silence, note_unknown, note_unknown_images, standing},
    sandbox::{PageRequest, SandboxFilter, SandboxRecord},
    template::{TemplateFilter, TemplatePageRequest, TemplateRecord},
};

/// The longest wait for a host's report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// A host's word, with what it rests on.
pub(super) enum Word {
    Report(HostReport),
    Stale,
    Silent { since: Timestamp },
}

impl Word {
    pub(super) const fn heard(&self) -> Heard<'_> {
        match self {
            Self::Report(report) => Heard::Report(report),
            Self::Stale => Heard::Stale,
            Self::Silent { since } => Heard::Silent { since: *since },
        }
    }
}

/// All that there is, at one moment.
pub(super) struct Survey {
    /// By ID.
    pub(super) records: Vec<SandboxRecord>,
    /// By ID.
    pub(super) templates: Vec<TemplateRecord>,
    /// Those that have not ended, by ID.
    pub(super) builds: Vec<BuildRecord>,
    pub(super) word: Word,
    pub(super) now: Timestamp,
}

impl Survey {
    /// Whether an operation without an owner can end only when the host is done with its order.
    pub(super) fn waits_for_host(&self, record: &SandboxRecord) -> bool {
        let abandoned = record.operation.as_ref().is_some_and(|operation| {
            operation.lease_until <= self.now
                && matches!(
                    operation.kind,
                    OperationKind::Pause | OperationKind::Resume | OperationKind::Snapshot
                )
        });
        match &self.word {
            Word::Report(report) if abandoned => standing(record, report).is_none(),
            _ => false,
        }
    }

    /// The record that an action is about.
    pub(super) fn planned(&self, about: About) -> Planned<'_> {
        let found = match about {
            About::Sandbox(id) => {
                find(&self.records, &id, |record| record.id).map(Planned::Sandbox)
            }
            About::Template(id) => {
                find(&self.templates, &id, |record| record.id).map(Planned::Template)
            }
            About::Build(id) => find(&self.builds, &id, |record| record.id).map(Planned::Build),
        };
        found.unwrap_or(Planned::Nothing)
    }
}

fn find<'r, T, I: Ord>(by_id: &'r [T], id: &I, id_of: impl Fn(&T) -> I) -> Option<&'r T> {
    let place = by_id.binary_search_by_key(id, id_of).ok()?;
    by_id.get(place)
}

impl Inner {
    /// Looks at everything. With `disown`, operations that are not at work here count as abandoned
    /// from now on.
    pub(super) async fn survey(
        self: &Arc<Self>,
        memory: &mut Memory,
        disown: bool,
    ) -> Result<Survey, Error> {
        // Templates, sandboxes, builds, the host, in this order: see `reconcile`.
        let early = match planted(Bug::HostBeforeStore) {
            true => Some(self.report().await),
            false => None,
        };
        let all_states = TemplateFilter {
            all_states: true,
            ..TemplateFilter::default()
        };
        let mut templates = self.templates_by(&all_states).await?;
        let mut records = self.all_records().await?;
        let mut builds = self.unended_builds().await?;
        let report = match early {
            Some(report) => report,
            None => self.report().await,
        };
        let now = self.now();
        let word = self.hear(memory, report, now).await?;
        let of_records = records.iter_mut().filter_map(|r| r.operation.as_mut());
        let of_templates = templates.iter_mut().filter_map(|t| t.operation.as_mut());
        let operations: Vec<&mut Operation> = of_records.chain(of_templates).collect();
        // One that the host is at work for is settled by a later round.
        let before = std::mem::take(&mut memory.disowned);
        let ids = operations.iter().map(|operation| operation.id);
        let left =
            |id: &OperationId| before.contains(id) || disown && self.flights.get(*id).is_none();
        memory.disowned = ids.filter(left).collect();
        self.note_owners(operations, &memory.disowned, now);
        let disown_builds = disown || planted(Bug::BuildLeaseIgnored);
        for build in &mut builds {
            if self.builds.has(build.id) {
                let ours = later(now, self.config.lease);
                build.lease_until = build.lease_until.map(|until| until.max(ours));
            } else if disown_builds && build.status == BuildStatus::Running {
                build.lease_until = build.lease_until.map(|until| until.min(now));
            }
        }
        if planted(Bug::NoPreMark) {
            records.iter_mut().for_each(planted::without_mark);
        }
        if let Word::Report(report) = &word {
            memory.unknown_since = note_unknown(&memory.unknown_since, &records, report, now);
            memory.unknown_images_since = note_unknown_images(
                &memory.unknown_images_since,
                &templates,
                &report.images,
                now,
            );
        }
        Ok(Survey {
            records,
            templates,
            builds,
            word,
            now,
        })
    }

    /// What a report, or none, is worth; see `reconcile::heard`.
    ///
    /// # Errors
    /// The host's or the store's, where the host is silent and not yet for too long.
    async fn hear(
        &self,
        memory: &mut Memory,
        report: Result<Option<HostReport>, Error>,
        now: Timestamp,
    ) -> Result<Word, Error> {
        let patience = self.config.host_silence;
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                let note = self.store.host(self.host_id).await;
                let note = note.map_err(errors::from_store)?;
                let silence = Silence::goes_on(memory.silence, note, now);
                memory.silence = Some(silence);
                return match silence.heard(now, patience) {
                    Some(Heard::Silent { since }) => {
                        tracing::warn!(%error, %since, "the host is silent");
                        Ok(Word::Silent { since })
                    }
                    _ => Err(error),
                };
            }
        };
        memory.silence = None;
        let Some(report) = report else {
            return Ok(Word::Stale);
        };
        // Often enough that nobody takes the host for silent who can't hear it himself.
        let every = patience / 6;
        if memory.noted_at.is_none_or(|at| now >= later(at, every)) {
            let seen = HostSeen {
                host_id: self.host_id,
                report: report.number(),
                seen_at: now,
            };
            match self.store.note_host(seen).await {
                Ok(()) => memory.noted_at = Some(now),
                Err(error) => tracing::warn!(%error, "not noted that the host was heard"),
            }
        }
        Ok(Word::Report(report))
    }

    /// The host's report; `None` where it came after a newer one. One that hangs must not end the
    /// reconciling of everything else.
    pub(super) async fn report(&self) -> Result<Option<HostReport>, Error> {
        let report = tokio::select! {
            biased;
            report = self.host.list_sandboxes() => report.map_err(errors::from_host)?,
            () = self.clock.sleep(REPORT_TIMEOUT) => return Err(Error::Unavailable(format!(
                "the host gave no report within {} s",
                REPORT_TIMEOUT.as_secs()
            ))),
        };
        let mut newest = self
            .newest_report
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = newest.filter(|_| !planted(Bug::StaleTrusted));
        if matches!(Heard::of(&report, known), Heard::Stale) {
            tracing::warn!(number = ?report.number(), "an old report of the host is left aside");
            return Ok(None);
        }
        *newest = Some(report.number());
        Ok(Some(report))
    }

    async fn all_records(&self) -> Result<Vec<SandboxRecord>, Error> {
        let everything = SandboxFilter {
            of_builds: true,
            ..SandboxFilter::default()
        };
        let mut records = Vec::new();
        let mut page = PageRequest {
            after: None,
            limit: PageRequest::LIMIT_MAX,
        };
        loop {
            let part = self
                .store
                .list_sandboxes(&everything, page)
                .await
                .map_err(errors::from_store)?;
            records.extend(part.items);
            match part.next {
                Some(next) => page.after = Some(next),
                None => return Ok(records),
            }
        }
    }

    /// All templates that a filter lets through.
    pub(super) async fn templates_by(
        &self,
        filter: &TemplateFilter,
    ) -> Result<Vec<TemplateRecord>, Error> {
        let mut records = Vec::new();
        let mut page = TemplatePageRequest {
            after: None,
            limit: PageRequest::LIMIT_MAX,
        };
        loop {
            let part = self.store.list_templates(filter, page).await;
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
    fn note_owners(
        &self,
        operations: Vec<&mut Operation>,
        disowned: &BTreeSet<OperationId>,
        now: Timestamp,
    ) {
        for operation in operations {
            if self.flights.get(operation.id).is_some() {
                operation.lease_until = operation.lease_until.max(later(now, self.config.lease));
            } else if disowned.contains(&operation.id) || planted(Bug::LeaseIgnored) {
                operation.lease_until = operation.lease_until.min(now);
            }
        }
    }
}

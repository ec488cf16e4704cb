//! What is told of a build that is followed: parts of its log become events, in an order that makes
//! sense to a reader. Pure.
//!
//! ```text
//!  part of the log ──► started 1, output, output, ended 1, started 2, ended 2 (cached), … , ended
//! ```
//!
//! A step is told before its output, and its end behind it. Whoever comes back in the middle of a
//! log is told again of the steps that have ended, and of no output twice.

use std::{collections::BTreeMap, mem};

use super::{BuildLog, BuildRecord, BuildStep, LogCursor, LogEntry};

/// What happens in a build.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildEvent {
    /// It stands elsewhere: its status, the step at work or the attempt has changed. The first event.
    Progress(Box<BuildRecord>),
    /// A step has begun.
    StepStarted(BuildStep),
    /// A step has printed something, or the platform has a remark on it.
    Output(LogEntry),
    /// A step has ended; [`BuildStep::ok`] says how, and [`BuildStep::cached`] whether its result was
    /// there already.
    StepEnded(BuildStep),
    /// The build has ended; nothing follows. [`BuildRecord::status`] says how.
    Ended(Box<BuildRecord>),
}

/// Follows one build.
#[derive(Debug, Clone, Default)]
pub struct Follower {
    after: LogCursor,
    /// Where the build stood when it was told last.
    stood: Option<(super::BuildStatus, u32, u32)>,
    attempt: u32,
    told: BTreeMap<u32, Told>,
    /// Output of a step that was not there yet when the steps were read.
    held: Vec<LogEntry>,
    ended: bool,
}

/// What was told of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Started,
    Ended,
}

impl Follower {
    /// Follows from a place in the log.
    #[must_use]
    pub fn new(after: LogCursor) -> Self {
        Self {
            after,
            ..Self::default()
        }
    }

    /// What to ask for next.
    #[must_use]
    pub const fn after(&self) -> LogCursor {
        self.after
    }

    /// Whether all was told.
    #[must_use]
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// What there is to tell, of the part of the log behind [`after`](Self::after).
    pub fn take(&mut self, log: BuildLog) -> Vec<BuildEvent> {
        let BuildLog {
            record,
            steps,
            entries,
            ended,
        } = log;
        let mut events = Vec::new();
        let stands = (record.status, record.current_step, record.attempt);
        if self.stood.replace(stands) != Some(stands) {
            events.push(BuildEvent::Progress(Box::new(record.clone())));
        }
        if mem::replace(&mut self.attempt, record.attempt) != record.attempt {
            self.told.clear();
        }
        if let Some(last) = entries.last() {
            self.after = last.cursor;
        }
        let quiet = entries.is_empty();
        let mut waiting = mem::take(&mut self.held);
        let were_held = waiting.len();
        waiting.extend(entries);
        for (place, entry) in waiting.into_iter().enumerate() {
            let of_now = entry.cursor.attempt() == u64::from(record.attempt);
            let known = !of_now || steps.iter().any(|step| step.step == entry.step);
            // The steps were read before the log: the next part has this one.
            if !self.held.is_empty() || (!known && place >= were_held && !ended) {
                self.held.push(entry);
                continue;
            }
            if of_now {
                self.catch_up(&steps, entry.step, &mut events);
            }
            events.push(BuildEvent::Output(entry));
        }
        if quiet && self.held.is_empty() {
            self.catch_up(&steps, u32::MAX, &mut events);
        }
        if ended {
            self.ended = true;
            events.push(BuildEvent::Ended(Box::new(record)));
        }
        events
    }

    /// Tells of all steps before `until`, and that it has begun.
    fn catch_up(&mut self, steps: &[BuildStep], until: u32, events: &mut Vec<BuildEvent>) {
        for step in steps.iter().filter(|step| step.step <= until) {
            let told = self.told.get(&step.step).copied();
            if told.is_none() {
                self.told.insert(step.step, Told::Started);
                events.push(BuildEvent::StepStarted(step.clone()));
            }
            if told != Some(Told::Ended) && step.step < until && step.ok.is_some() {
                self.told.insert(step.step, Told::Ended);
                events.push(BuildEvent::StepEnded(step.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        audit::Actor,
        build::{BuildPhase, BuildStatus, LogStream, Recipe},
        clock::Timestamp,
        id::{BuildId, PLATFORM_TEAM_ID, TemplateId},
        size::MachineSize,
    };

    fn record(status: BuildStatus, current_step: u32, attempt: u32) -> BuildRecord {
        BuildRecord {
            id: BuildId::from_uuid(Uuid::nil()),
            team_id: PLATFORM_TEAM_ID,
            name: "web".parse().unwrap(),
            base_template: "debian".parse().unwrap(),
            base_id: TemplateId::from_uuid(Uuid::nil()),
            recipe: Recipe::default(),
            context: None,
            healthcheck: None,
            size: MachineSize::default(),
            no_cache: false,
            status,
            current_step,
            total_steps: 3,
            attempt,
            handed_back: 0,
            lease_until: None,
            sandbox_id: None,
            template_id: None,
            failure: None,
            actor: Actor::app(),
            idempotency_key: None,
            version: 1,
            created_at: Timestamp::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn step(step: u32, attempt: u32, ok: Option<bool>) -> BuildStep {
        BuildStep {
            build_id: BuildId::from_uuid(Uuid::nil()),
            attempt,
            step,
            phase: BuildPhase::Recipe,
            cmd: format!("step {step}"),
            exit_code: None,
            ok,
            elapsed_ms: 0,
            cached: false,
            dropped_bytes: 0,
        }
    }

    fn entry(attempt: u32, number: u64, step: u32) -> LogEntry {
        LogEntry {
            cursor: LogCursor::new(attempt, number),
            step,
            stream: LogStream::Stdout,
            data: b"x".to_vec(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    /// What was told, in short.
    fn told(events: &[BuildEvent]) -> Vec<String> {
        let short = |event: &BuildEvent| match event {
            BuildEvent::Progress(record) => {
                format!("{} {}", record.status.as_str(), record.attempt)
            }
            BuildEvent::StepStarted(step) => format!("+{}", step.step),
            BuildEvent::Output(entry) => format!("{}.{}", entry.step, entry.cursor.0 & 0xff),
            BuildEvent::StepEnded(step) => format!("-{}", step.step),
            BuildEvent::Ended(record) => format!("end {}", record.status.as_str()),
        };
        events.iter().map(short).collect()
    }

    fn part(record: BuildRecord, steps: &[BuildStep], entries: &[LogEntry]) -> BuildLog {
        let ended = record.status.ended() && entries.is_empty();
        BuildLog {
            record,
            steps: steps.to_vec(),
            entries: entries.to_vec(),
            ended,
        }
    }

    #[test]
    fn r29_a_step_is_told_before_its_output_and_its_end_behind_it() {
        let running = |step| record(BuildStatus::Running, step, 1);
        let mut follower = Follower::default();
        let waits = part(record(BuildStatus::Pending, 0, 0), &[], &[]);
        assert_eq!(told(&follower.take(waits.clone())), ["pending 0"]);
        assert_eq!(told(&follower.take(waits)), [""; 0]);
        let steps = [step(1, 1, Some(true)), step(2, 1, None)];
        let entries = [entry(1, 1, 1), entry(1, 2, 2)];
        let events = follower.take(part(running(2), &steps, &entries));
        assert_eq!(told(&events), ["running 1", "+1", "1.1", "-1", "+2", "2.2"]);
        assert_eq!(follower.after(), LogCursor::new(1, 2));

        // Ended, with output that is still to be read.
        let steps = [step(1, 1, Some(true)), step(2, 1, Some(true))];
        let events = follower.take(part(running(2), &steps, &[entry(1, 3, 2)]));
        assert_eq!(told(&events), ["2.3"]);
        let events = follower.take(part(running(2), &steps, &[]));
        assert_eq!(told(&events), ["-2"]);

        let steps = [&steps[..], &[step(3, 1, Some(true))]].concat();
        let done = record(BuildStatus::Success, 3, 1);
        let events = follower.take(part(done, &steps, &[]));
        assert_eq!(told(&events), ["success 1", "+3", "-3", "end success"]);
        assert!(follower.ended());
    }

    #[test]
    fn r29_output_of_a_step_that_is_not_known_yet_waits_for_it_once() {
        let running = record(BuildStatus::Running, 1, 1);
        let mut follower = Follower::default();
        let early = part(running.clone(), &[], &[entry(1, 1, 1)]);
        assert_eq!(told(&follower.take(early)), ["running 1"]);
        let steps = [step(1, 1, None)];
        let events = follower.take(part(running.clone(), &steps, &[entry(1, 2, 1)]));
        assert_eq!(told(&events), ["+1", "1.1", "1.2"]);
        // One that never comes holds nothing up.
        let stray = part(running.clone(), &steps, &[entry(1, 3, 9)]);
        assert_eq!(told(&follower.take(stray)), [""; 0]);
        let events = follower.take(part(running, &steps, &[]));
        assert_eq!(told(&events), ["9.3"]);
    }

    #[test]
    fn r31_a_second_attempt_tells_its_steps_anew() {
        let mut follower = Follower::default();
        let first = [step(1, 1, Some(true))];
        let log = part(
            record(BuildStatus::Running, 1, 1),
            &first,
            &[entry(1, 1, 1)],
        );
        assert_eq!(told(&follower.take(log)), ["running 1", "+1", "1.1"]);
        // What the first attempt printed last comes with the steps of the second.
        let second = [step(1, 2, None)];
        let entries = [entry(1, 2, 1), entry(2, 1, 1)];
        let log = part(record(BuildStatus::Running, 1, 2), &second, &entries);
        let events = follower.take(log);
        assert_eq!(told(&events), ["running 2", "1.2", "+1", "1.1"]);
    }

    #[test]
    fn r32_who_comes_back_is_told_of_no_output_twice() {
        let steps = [step(1, 1, Some(true)), step(2, 1, None)];
        let mut follower = Follower::new(LogCursor::new(1, 7));
        assert_eq!(follower.after(), LogCursor::new(1, 7));
        let log = part(
            record(BuildStatus::Running, 2, 1),
            &steps,
            &[entry(1, 8, 2)],
        );
        let events = follower.take(log);
        assert_eq!(told(&events), ["running 1", "+1", "-1", "+2", "2.8"]);
    }
}

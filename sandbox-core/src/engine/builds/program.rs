//! The steps of all phases of a build, as a pure function of what was asked for.

use crate::build::{BuildPhase, BuildRecord, Step};

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) phase: BuildPhase,
    /// For people.
    pub(super) cmd: String,
    pub(super) work: Work,
}

/// What is done in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// Makes the sandbox that the rest runs in.
    Prepare,
    /// A step of the recipe, by its place there, from 0.
    Recipe(usize),
    /// Starts the process that is to run when the snapshot is taken.
    Start(String),
    /// Waits until the result is healthy.
    Check,
    /// Makes the template.
    Save,
}

/// What a build does, in order.
pub(super) fn program(record: &BuildRecord) -> Vec<Planned> {
    let planned = |phase, cmd: String, work| Planned { phase, cmd, work };
    let mut all = vec![planned(
        BuildPhase::Pre,
        format!("prepare a sandbox of {}", record.base_template),
        Work::Prepare,
    )];
    for (place, step) in record.recipe.steps.iter().enumerate() {
        all.push(match step {
            Step::Start { command } => planned(
                BuildPhase::Post,
                step.to_string(),
                Work::Start(command.clone()),
            ),
            _ => planned(BuildPhase::Recipe, step.to_string(), Work::Recipe(place)),
        });
    }
    if let Some(check) = &record.healthcheck {
        all.push(planned(
            BuildPhase::Post,
            format!("healthcheck: {}", check.cmd),
            Work::Check,
        ));
    }
    let saved = match &record.healthcheck {
        Some(_) => format!("save disk and memory as {}", record.name),
        None => format!("save the disk as {}", record.name),
    };
    all.push(planned(BuildPhase::Post, saved, Work::Save));
    all
}

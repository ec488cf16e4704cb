//! Every step that an engine takes × everything that can befall it.
//!
//! The steps are those that the network sees; nobody lists them by hand. What chance does not bring
//! is ordered: a life in which the step was taken is lived again, the same up to that step, and there
//! the fault strikes. A step that some fault never struck fails the test, and so does a step that
//! came or went without the golden file saying so.

use std::{collections::BTreeSet, fmt::Write as _, sync::Mutex};

use super::*;
use crate::{operation::OperationKind, sim::world::steps};

/// Lives by which the steps become known.
const LIVES: u64 = 600;
/// Lives of each step that are remembered, to be lived again.
const REMEMBERED: usize = 3;

/// A step: the faults that befell it, and lives in which it was taken.
type Covered = BTreeMap<Step, (BTreeSet<Fault>, BTreeSet<u64>)>;

fn note(covered: &mut Covered, outcome: &Outcome) {
    for (step, faults) in &outcome.steps {
        let (befallen, lives) = covered.entry(*step).or_default();
        befallen.extend(faults.keys().flatten());
        // The first ones, whatever the order in which threads bring them.
        lives.insert(outcome.seed);
        if lives.len() > REMEMBERED {
            lives.pop_last();
        }
    }
}

/// Orders a fault. What that does to the platform must not matter either.
fn strike(seed: u64, step: Step, fault: Fault) -> Outcome {
    let directed = Directed {
        step,
        fault,
        spared: 0,
    };
    let options = Options {
        directed: Some(directed),
        ..Options::default()
    };
    let outcome = simulate(seed, options);
    let violations = &outcome.violations;
    assert!(
        violations.is_empty(),
        "seed {seed} with {directed:?}: {violations:#?}"
    );
    outcome
}

fn table(covered: &Covered) -> String {
    let mut text = format!("{:<56}", "step");
    for fault in Fault::ALL {
        write!(text, " {fault:?}").unwrap();
    }
    for (step, (faults, _)) in covered {
        write!(text, "\n{:<56}", step.to_string()).unwrap();
        for fault in Fault::ALL {
            let mark = if faults.contains(&fault) { "x" } else { "-" };
            let width = format!("{fault:?}").len();
            write!(text, " {mark:<width$}").unwrap();
        }
    }
    text.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

#[test]
fn every_step_has_failed_crashed_and_been_done_twice() {
    let covered = Mutex::new(Covered::new());
    live_all(0..LIVES, |outcome| {
        assert_unbroken(&outcome);
        note(&mut covered.lock().unwrap(), &outcome);
    });
    let mut covered = covered.into_inner().unwrap();
    for (step, (befallen, lives)) in covered.clone() {
        for fault in Fault::ALL {
            // Also where chance has brought it: at the first time that the step is taken.
            for seed in &lives {
                note(&mut covered, &strike(*seed, step, fault));
            }
        }
        let befallen_now = &covered[&step].0;
        let gap = Fault::ALL
            .into_iter()
            .find(|fault| !befallen_now.contains(fault));
        assert_eq!(
            gap, None,
            "never befell {step}; by chance there were {befallen:?}"
        );
    }
    insta::assert_snapshot!(table(&covered));
    // Whoever adds an operation gives the simulation something to do with it.
    for kind in OperationKind::ALL {
        let steps: Vec<&str> = covered
            .keys()
            .filter(|step| step.of == kind.as_str())
            .map(|step| step.does)
            .collect();
        let has = |names: &[&str]| names.iter().any(|name| steps.contains(name));
        assert!(
            has(&["write the mark", "write the first record"]),
            "{kind:?}: {steps:?}"
        );
        assert!(
            has(&["write the success", "remove the record"]),
            "{kind:?}: {steps:?}"
        );
        assert!(
            steps.iter().any(|does| does.starts_with("order")),
            "{kind:?}: {steps:?}"
        );
    }
    for step in steps::BUILD_STEPS {
        assert!(covered.contains_key(&step), "nobody has seen {step}");
    }
    for order in steps::ORDERS {
        assert!(covered.contains_key(&order), "nobody has seen {order}");
    }
}

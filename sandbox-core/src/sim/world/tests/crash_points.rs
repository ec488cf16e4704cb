//! Every step that an engine takes × everything that can befall it.
//!
//! The steps are those that the network sees; nobody lists them by hand. What chance does not bring
//! is ordered: the fault is directed at the step, seed after seed, until it has struck. A step that
//! some fault never struck fails the test, and so does a step that came or went without the golden
//! file saying so.

use std::{collections::BTreeSet, fmt::Write as _, sync::Mutex};

use super::*;
use crate::{operation::OperationKind, sim::world::steps};

/// Lives by which the steps become known.
const LIVES: u64 = 1500;
/// Lives in which a fault that was ordered must strike.
const ATTEMPTS: u64 = 600;

type Covered = BTreeMap<Step, BTreeSet<Fault>>;

fn note(covered: &mut Covered, outcome: &Outcome) {
    for (step, faults) in &outcome.steps {
        let befallen = covered.entry(*step).or_default();
        befallen.extend(faults.keys().flatten());
    }
}

/// Orders a fault until it strikes. What that does to the platform must not matter either.
fn strike(step: Step, fault: Fault) -> Option<Outcome> {
    (0..ATTEMPTS).find_map(|seed| {
        let directed = Directed {
            step,
            fault,
            spared: u32::try_from(seed % 3).unwrap(),
        };
        let options = Options {
            directed: Some(directed),
            ..Options::default()
        };
        let outcome = simulate(seed, options);
        let struck = outcome.steps.get(&step)?.contains_key(&Some(fault));
        assert!(
            outcome.violations.is_empty(),
            "seed {seed} with {directed:?}: {:#?}",
            outcome.violations
        );
        struck.then_some(outcome)
    })
}

fn table(covered: &Covered) -> String {
    let mut text = format!("{:<56}", "step");
    for fault in Fault::ALL {
        write!(text, " {fault:?}").unwrap();
    }
    for (step, faults) in covered {
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
    let gaps: Vec<(Step, Fault)> = covered
        .iter()
        .flat_map(|(step, faults)| {
            let missing = Fault::ALL
                .into_iter()
                .filter(|fault| !faults.contains(fault));
            missing.map(|fault| (*step, fault)).collect::<Vec<_>>()
        })
        .collect();
    for (step, fault) in gaps {
        let outcome = strike(step, fault);
        let outcome = outcome.unwrap_or_else(|| panic!("{fault:?} never befell {step}"));
        note(&mut covered, &outcome);
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
    for order in steps::ORDERS {
        assert!(covered.contains_key(&order), "nobody has seen {order}");
    }
}

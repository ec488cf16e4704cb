//! The reconciler's whole table, to be read by people.

use super::*;
use crate::sandbox::OnTimeout;

/// Whether the deadline lies ahead, and what is to become of it where it does not.
const DEADLINES: [(&str, i64, OnTimeout); 3] = [
    ("deadline ahead", 101, OnTimeout::Destroy),
    ("deadline passed, to be destroyed", 100, OnTimeout::Destroy),
    ("deadline passed, to be paused", 100, OnTimeout::Pause),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Freshness {
    Fresh,
    Stale,
    Silent,
}

fn cell(action: &Action) -> &'static str {
    match action {
        Action::MarkStopped { .. } => "stopped",
        Action::MarkRunning { .. } => "running",
        Action::MarkPaused { .. } => "paused",
        Action::MarkMissing { .. } => "missing",
        Action::SettleOperation { standing, .. } => match standing {
            Standing::Running => "end:running",
            Standing::Paused => "end:paused",
            Standing::Stopped { .. } => "end:stopped",
            Standing::Unknown { .. } => "end:missing",
        },
        Action::CompleteCreate { .. } => "COMPLETE",
        Action::UndoCreate { .. } => "UNDO",
        Action::RedoDestroy { .. } => "DESTROY",
        Action::Expire { .. } => "EXPIRE",
        Action::PauseUnused { .. } => "PAUSE",
        Action::CleanUp { .. } => "CLEAN",
        other => panic!("{other} is about no record"),
    }
}

const LEGEND: &str = "
Rows: the record's state. Columns: what the host shows of its machine, of the record's generation
unless it says older or newer; with … while the host is at work on it.
.            nothing is done
stopped …    the record says so from now on
end:…        the operation ends, and the record says so
COMPLETE     the create has succeeded
UNDO         the host frees what it has of it, then the record goes
DESTROY      the destroy is done again
EXPIRE       a destroy begins
PAUSE        a pause begins
CLEAN        the host frees what it has of it; the record stays
";

fn block(doing: Doing, expires: i64, on_timeout: OnTimeout, freshness: Freshness) -> String {
    let mut views: Vec<(&str, Option<HostSandbox>)> = views().into();
    if freshness != Freshness::Fresh {
        views = vec![("-", None)];
    }
    let mut block = format!("{:9}", "");
    for (name, _) in &views {
        write!(block, "{name:12}").unwrap();
    }
    block = format!("{}\n", block.trim_end());
    for state in SandboxState::ALL {
        let mut line = format!("{:9}", state.as_str());
        for (_, machine) in &views {
            let mut record = record(1, state, doing, Some(expires));
            record.on_timeout = on_timeout;
            let report = report(machine.clone().into_iter().collect());
            let heard = match freshness {
                Freshness::Fresh => Heard::Report(&report),
                Freshness::Stale => Heard::Stale,
                Freshness::Silent => Heard::Silent { since: at(60) },
            };
            let actions = planned_on(&[record], heard);
            assert!(actions.len() <= 1);
            let outcome = actions.first().map_or(".", cell);
            write!(line, "{outcome:12}").unwrap();
        }
        writeln!(block, "{}", line.trim_end()).unwrap();
    }
    block
}

#[test]
fn r34_every_combination_has_this_outcome() {
    // Combinations of one outcome stand together, in the order in which they were first met.
    let mut blocks: Vec<(String, Vec<String>)> = Vec::new();
    for (freshness, word) in [
        (Freshness::Fresh, "the report is new"),
        (Freshness::Stale, "the report is old"),
        (Freshness::Silent, "the host is silent"),
    ] {
        for doing in DOINGS {
            let doing_word = match doing {
                Doing::Nothing => "no operation".to_owned(),
                Doing::Live(kind) => format!("{} at work", kind.as_str()),
                Doing::Lapsed(kind) => format!("{} without an owner", kind.as_str()),
            };
            for (deadline, expires, on_timeout) in DEADLINES {
                let block = block(doing, expires, on_timeout, freshness);
                let heading = format!("{word}, {doing_word}, {deadline}");
                match blocks.iter_mut().find(|(there, _)| *there == block) {
                    Some((_, headings)) => headings.push(heading),
                    None => blocks.push((block, vec![heading])),
                }
            }
        }
    }
    let mut table = LEGEND.trim_start().to_owned();
    for (block, headings) in blocks {
        table.push('\n');
        for heading in shortened(&headings) {
            writeln!(table, "# {heading}").unwrap();
        }
        table.push_str(&block);
    }
    insta::assert_snapshot!("every_combination", table);
}

/// Where all three deadlines have one outcome, one line says it.
fn shortened(headings: &[String]) -> Vec<String> {
    let mut short: Vec<String> = Vec::new();
    for heading in headings {
        let stem = heading.rsplit_once(", deadline").unwrap().0;
        let all = DEADLINES
            .iter()
            .all(|(deadline, ..)| headings.contains(&format!("{stem}, {deadline}")));
        let line = match all {
            true => stem.to_owned(),
            false => heading.clone(),
        };
        if !short.contains(&line) {
            short.push(line);
        }
    }
    short
}

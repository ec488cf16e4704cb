//! What a step runs in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::step::Step;
use crate::build::guest_path::join;

/// What the steps before have set for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Environment variables, over those that every process has.
    pub env: BTreeMap<String, String>,
    /// The working directory: absolute, without `.` and `..`. `/` where nothing set one. Whoever runs
    /// a step makes it first, as root, where it is missing.
    pub workdir: String,
    /// The user; root where absent.
    pub user: Option<String>,
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            env: BTreeMap::new(),
            workdir: "/".to_owned(),
            user: None,
        }
    }
}

impl Scope {
    /// What the step sets for those behind it.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Env { vars } => self.env.extend(vars.iter().cloned()),
            Step::Workdir { path } => self.workdir = join(&self.workdir, path),
            Step::User { name } => self.user = Some(name.clone()),
            Step::Run { .. } | Step::Copy { .. } | Step::Start { .. } => {}
        }
    }
}

/// What step `index` (from 0) runs in. Behind the last step it is what the whole recipe has set.
#[must_use]
pub fn scope_before(steps: &[Step], index: usize) -> Scope {
    let mut scope = Scope::default();
    for step in steps.iter().take(index) {
        scope.apply(step);
    }
    scope
}

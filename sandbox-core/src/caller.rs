//! Who asks: a team, or an administrator of the platform.

use serde::{Deserialize, Serialize};

use crate::{
    audit::Actor,
    id::{PLATFORM_TEAM_ID, TeamId},
};

/// Who asks, as far as rights go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Who, for the audit log. Callers of two teams never share one: by it a caller finds what
    /// became of a thing that it has changed and that is gone.
    pub actor: Actor,
    /// The team that owns what the caller makes.
    pub team_id: TeamId,
    /// Whether the caller may change what is the platform's, and sees all teams' things.
    pub admin: bool,
}

impl Caller {
    /// An administrator: acts for the platform's team.
    #[must_use]
    pub const fn admin(actor: Actor) -> Self {
        Self {
            actor,
            team_id: PLATFORM_TEAM_ID,
            admin: true,
        }
    }

    /// A member of a team.
    #[must_use]
    pub const fn team(actor: Actor, team_id: TeamId) -> Self {
        Self {
            actor,
            team_id,
            admin: false,
        }
    }
}

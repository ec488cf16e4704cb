//! Who may do what: one pure function, asked before anything is touched.
//!
//! What a caller must not know of is [`Denied::NotFound`]: the answer is then the same as where there
//! is nothing, so that nobody learns of another team's things by asking. What a caller sees but may
//! not do is [`Denied::Forbidden`].
//!
//! *Never here:* a store, a name that is looked up, or the text of a request.

use crate::{
    caller::Caller,
    id::{PLATFORM_TEAM_ID, TeamId},
};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// See it, and use it without changing its record: run something in a sandbox, start from a
    /// template.
    Use,
    /// Change or remove it.
    Change,
    /// Make it.
    Create,
}

impl Action {
    /// All actions, for tables and tests.
    pub const ALL: [Self; 3] = [Self::Use, Self::Change, Self::Create];
}

/// What it is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A team's sandbox.
    Sandbox(TeamId),
    /// A team's operation, also where its sandbox is gone.
    Operation(TeamId),
    /// A team's template.
    Template(TeamId),
    /// A template's name within a team.
    TemplateName {
        /// The team that would own the template.
        team_id: TeamId,
        /// Whether the platform has a template of this name.
        platform_has_it: bool,
    },
    /// Files of the host, and what the host fetches from elsewhere.
    HostFiles,
    /// What all teams have, as one list.
    AllTeams,
}

/// Why something may not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denied {
    /// For this caller there is no such thing.
    NotFound,
    /// The caller may not, for the reason given.
    Forbidden(&'static str),
}

const PLATFORMS: Denied =
    Denied::Forbidden("it belongs to the platform; only an administrator may change it");
const PLATFORMS_NAME: Denied =
    Denied::Forbidden("a template of the platform has this name; choose another");
const ADMINS: Denied = Denied::Forbidden("only an administrator may do this");
const OTHERS: Denied = Denied::Forbidden("it would belong to another team");

/// Whether a caller may do something.
///
/// An administrator may do all. A team sees, uses and changes what is its own, sees and uses the
/// platform's templates, and knows nothing of any other team.
///
/// # Errors
/// Why it may not.
pub fn authorize(caller: &Caller, action: Action, resource: Resource) -> Result<(), Denied> {
    if caller.admin {
        return Ok(());
    }
    let own = |team_id: TeamId| team_id == caller.team_id;
    match (resource, action) {
        (Resource::HostFiles | Resource::AllTeams, _) => Err(ADMINS),
        // Whatever team a caller names as its own, only an administrator acts for the platform.
        (
            Resource::Template(PLATFORM_TEAM_ID)
            | Resource::TemplateName {
                team_id: PLATFORM_TEAM_ID,
                ..
            },
            Action::Change | Action::Create,
        ) => Err(PLATFORMS),
        (Resource::Template(PLATFORM_TEAM_ID), Action::Use) => Ok(()),
        (
            Resource::TemplateName {
                team_id,
                platform_has_it,
            },
            _,
        ) => match (own(team_id), platform_has_it) {
            (false, _) => Err(OTHERS),
            (true, true) if action != Action::Use => Err(PLATFORMS_NAME),
            (true, _) => Ok(()),
        },
        (
            Resource::Sandbox(team_id) | Resource::Operation(team_id) | Resource::Template(team_id),
            _,
        ) if own(team_id) => Ok(()),
        (Resource::Sandbox(_) | Resource::Operation(_) | Resource::Template(_), Action::Create) => {
            Err(OTHERS)
        }
        (
            Resource::Sandbox(_) | Resource::Operation(_) | Resource::Template(_),
            Action::Use | Action::Change,
        ) => Err(Denied::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::audit::Actor;

    const ALPHA: TeamId = TeamId::from_uuid(Uuid::from_u128(0xa));
    const BETA: TeamId = TeamId::from_uuid(Uuid::from_u128(0xb));

    fn callers() -> [(&'static str, Caller); 3] {
        [
            ("alpha", Caller::team(Actor::app(), ALPHA)),
            (
                "platform's, no admin",
                Caller::team(Actor::app(), PLATFORM_TEAM_ID),
            ),
            ("admin", Caller::admin(Actor::app())),
        ]
    }

    fn resources() -> Vec<(String, Resource)> {
        let teams = [
            ("alpha's", ALPHA),
            ("beta's", BETA),
            ("the platform's", PLATFORM_TEAM_ID),
        ];
        let mut all = Vec::new();
        for (whose, team_id) in teams {
            all.push((format!("{whose} sandbox"), Resource::Sandbox(team_id)));
            all.push((format!("{whose} operation"), Resource::Operation(team_id)));
            all.push((format!("{whose} template"), Resource::Template(team_id)));
            for (which, platform_has_it) in [("a free name", false), ("a platform's name", true)] {
                let resource = Resource::TemplateName {
                    team_id,
                    platform_has_it,
                };
                all.push((format!("{which} as {whose}"), resource));
            }
        }
        all.push(("the host's files".to_owned(), Resource::HostFiles));
        all.push(("all teams' list".to_owned(), Resource::AllTeams));
        all
    }

    /// The whole table, to be read by people.
    #[test]
    fn r39_the_whole_table() {
        let mut table = String::new();
        for (who, caller) in callers() {
            writeln!(table, "{who}").unwrap();
            for (what, resource) in resources() {
                let answers =
                    Action::ALL.map(|action| match authorize(&caller, action, resource) {
                        Ok(()) => "yes",
                        Err(Denied::NotFound) => "not found",
                        Err(Denied::Forbidden(_)) => "forbidden",
                    });
                let [used, changed, created] = answers;
                let line =
                    format!("  {what:<36} use: {used:<10} change: {changed:<10} create: {created}");
                writeln!(table, "{}", line.trim_end()).unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn r24_only_an_admin_may_touch_what_is_the_platforms() {
        let (_, admin) = &callers()[2];
        for (who, caller) in &callers()[..2] {
            for action in [Action::Change, Action::Create] {
                for resource in [
                    Resource::Template(PLATFORM_TEAM_ID),
                    Resource::TemplateName {
                        team_id: PLATFORM_TEAM_ID,
                        platform_has_it: false,
                    },
                    Resource::TemplateName {
                        team_id: caller.team_id,
                        platform_has_it: true,
                    },
                ] {
                    let answer = authorize(caller, action, resource);
                    let forbidden = matches!(answer, Err(Denied::Forbidden(_)));
                    assert!(forbidden, "{who} {action:?} {resource:?}: {answer:?}");
                    assert_eq!(authorize(admin, action, resource), Ok(()));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn r23_of_other_teams_nobody_learns_more_than_of_nothing(own: u128, other: u128) {
            prop_assume!(own != other && other != 0);
            let caller = Caller::team(Actor::app(), TeamId::from_uuid(Uuid::from_u128(own)));
            let other = TeamId::from_uuid(Uuid::from_u128(other));
            for action in [Action::Use, Action::Change] {
                for resource in [
                    Resource::Sandbox(other),
                    Resource::Operation(other),
                    Resource::Template(other),
                ] {
                    prop_assert_eq!(authorize(&caller, action, resource), Err(Denied::NotFound));
                }
            }
        }
    }
}

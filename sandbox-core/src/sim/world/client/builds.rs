//! Requests about template builds.

use std::time::Duration;

use bytes::Bytes;

use super::{Answer, Client, TEAMS};
use crate::{
    api::{Api, BuildsApi},
    build::{
        BuildFilter, BuildPageRequest, BuildRecord, BuildStatus, Healthcheck, LogCursor, Recipe,
        SubmitBuild,
    },
    error::Error,
    id::BuildId,
    name::DEFAULT_TEMPLATE,
    sandbox::CreateSandbox,
};

/// How names begin that builds alone have.
pub(in crate::sim::world) const BUILT: &str = "built-";
/// How often a log is asked for what follows.
const LOOKS_MAX: u64 = 8;

/// Whether a recipe can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim::world) enum Nature {
    /// Only the platform can make it fail.
    Sound,
    /// It fails.
    Doomed,
    /// That depends on what else happens.
    Open,
}

/// A recipe, its healthcheck, and whether it can succeed.
struct Plan {
    lines: &'static [&'static str],
    check: Option<&'static str>,
    nature: Nature,
}

const fn sound(lines: &'static [&'static str], check: Option<&'static str>) -> Plan {
    let nature = Nature::Sound;
    Plan {
        lines,
        check,
        nature,
    }
}

const fn doomed(lines: &'static [&'static str], check: Option<&'static str>) -> Plan {
    let nature = Nature::Doomed;
    Plan {
        lines,
        check,
        nature,
    }
}

/// All recipes. Several begin alike, so that one finds what another has left.
const PLANS: [Plan; 13] = [
    sound(&["echo one"], None),
    sound(&["echo one", "echo two"], None),
    sound(&["echo one", "echo two", "sleep 3; echo three"], None),
    sound(&["ENV A=b", "WORKDIR /srv", "echo $A"], None),
    sound(&["echo one; sleep 7; echo two >&2"], None),
    sound(&["echo one", "START sleep 100000"], Some("true")),
    sound(&["COPY a.txt /srv/a.txt", "cat /srv/a.txt"], None),
    doomed(&["echo one", "echo no >&2; exit 3"], None),
    doomed(&["false"], None),
    doomed(&["echo one", "sleep 1000"], None),
    doomed(&["RUN --timeout=1 sleep 20"], None),
    doomed(&["echo one", "START false"], Some("true")),
    doomed(&["START sleep 100000"], Some("echo not yet; false")),
];

impl Plan {
    fn recipe(&self) -> Recipe {
        // None of these is wrong: each begins some build in a test that looks at all of them.
        Recipe::parse_list(self.lines).unwrap_or_default()
    }

    fn healthcheck(&self) -> Option<Healthcheck> {
        let mut check = Healthcheck::new(self.check?);
        check.retries = 2;
        check.interval_sec = 1;
        Some(check)
    }

    fn copies(&self) -> bool {
        self.lines.iter().any(|line| line.starts_with("COPY"))
    }
}

/// Whether what was asked for can succeed.
pub(in crate::sim::world) fn nature(build: &BuildRecord) -> Nature {
    let plan = PLANS
        .iter()
        .find(|plan| plan.recipe() == build.recipe && plan.healthcheck() == build.healthcheck);
    match plan {
        Some(plan) if plan.nature == Nature::Doomed => Nature::Doomed,
        // Anyone may delete another base.
        Some(plan) if build.base_template.as_str() == DEFAULT_TEMPLATE => plan.nature,
        _ => Nature::Open,
    }
}

/// A tar archive of one file.
fn context() -> Bytes {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let content = b"copied\n";
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    // It is written into memory.
    let _ = archive.append_data(&mut header, "a.txt", content.as_slice());
    archive.into_inner().unwrap_or_default().into()
}

impl Client {
    pub(super) async fn build_request(&self) {
        match self.world.below(100) {
            0..40 => self.submit().await,
            40..52 => self.cancel().await,
            52..58 => self.list_builds().await,
            58..82 => self.follow().await,
            82..88 => self.look_at_build().await,
            88..94 => self.create_of_build().await,
            _ => self.delete_template().await,
        }
    }

    fn new_build(&self) -> (SubmitBuild, bool) {
        let templates = self.own_templates();
        let rng = &mut self.world.lock().rng;
        // Requests under one key are one request.
        let key = rng.chance(3000).then(|| rng.below(3));
        let (plan, name, team_id, base) = match key {
            Some(key) => (key as usize + 1, format!("{BUILT}{key}"), None, None),
            None => {
                let base = rng.chance(1500).then(|| rng.pick(&templates)).flatten();
                let (name, team) = match rng.chance(2000) {
                    true => (format!("made-{}", rng.below(4)), Some(TEAMS[0])),
                    false => (format!("{BUILT}{}", rng.below(3)), None),
                };
                (rng.index(PLANS.len()), name, team, base)
            }
        };
        let plan = &PLANS[plan];
        let request = SubmitBuild {
            name,
            base_template: base.map(|id| id.to_string()),
            recipe: plan.recipe(),
            context: None,
            healthcheck: plan.healthcheck(),
            vcpus: None,
            memory_mb: None,
            disk_size_mb: None,
            no_cache: key.is_none() && rng.chance(2000),
            team_id,
            idempotency_key: key.map(|key| format!("build-{key}")),
        };
        (request, plan.copies())
    }

    async fn submit(&self) {
        let (mut request, copies) = self.new_build();
        if copies {
            let answer = self
                .ask(|api| async move { api.upload_context(context()).await })
                .await;
            match answer {
                Answer::Told(Ok(name)) => request.context = Some(name),
                _ => return,
            }
        }
        let key = request.idempotency_key.clone();
        // A client that has a key asks again, as clients do that got no answer.
        for _ in 0..if key.is_some() { 3 } else { 1 } {
            let request = request.clone();
            let answer = self
                .ask(|api| async move { api.submit_build(request).await })
                .await;
            match answer {
                Answer::Told(Ok(record)) => {
                    self.say("build asked for", record.id.uuid().as_u128(), || {
                        format!("{} {:?}", record.id, record.recipe)
                    });
                    self.world.told_build(&record, 0);
                    self.check_key(key, record.id);
                    return;
                }
                Answer::Told(Err(error)) => {
                    self.say("build not asked for", 0, || error.to_string());
                    if matches!(error, Error::Internal(_) | Error::IdempotencyMismatch) {
                        self.world
                            .violated(|| format!("a build was not asked for: {error}"));
                    }
                }
                Answer::Silence => {}
            }
        }
    }

    fn check_key(&self, key: Option<String>, id: BuildId) {
        let Some(key) = key else {
            return;
        };
        let before = self
            .world
            .book(|book| *book.build_keys.entry(key).or_insert(id));
        if before != id {
            self.world
                .violated(|| format!("{id} was asked for under the key of {before}"));
        }
    }

    /// A build that is there, whether or not anyone was told of it.
    fn some_build(&self, unended: bool) -> Option<(BuildId, u64)> {
        let inner = &mut *self.world.lock();
        let there: Vec<BuildId> = inner
            .truth
            .builds
            .all()
            .filter(|build| !unended || !build.status.ended())
            .map(|build| build.id)
            .collect();
        let id = match inner.rng.coin() {
            true => there.last().copied(),
            false => inner.rng.pick(&there),
        }?;
        let asked = inner.book.builds.get(&id);
        Some((id, asked.map_or(0, |asked| asked.version)))
    }

    async fn cancel(&self) {
        let unended = self.world.chance(8000);
        let Some((id, least)) = self.some_build(unended) else {
            return;
        };
        let answer = self
            .ask(|api| async move { api.cancel_build(id).await })
            .await;
        let Answer::Told(told) = answer else {
            return;
        };
        self.say("cancel", id.uuid().as_u128(), || format!("{id}: {told:?}"));
        let stands = self.world.built(id).map(|build| build.status);
        match told {
            Ok(record) => {
                if stands != Some(BuildStatus::Cancelled) {
                    self.world
                        .violated(|| format!("{id} was told cancelled, and is {stands:?}"));
                }
                self.world.told_build(&record, least);
            }
            Err(Error::BuildEnded { status, .. }) => {
                if stands != Some(status) || status == BuildStatus::Cancelled {
                    self.world
                        .violated(|| format!("{id} was told {status:?}, and is {stands:?}"));
                }
            }
            Err(Error::BuildNotFound(_)) => {
                self.world
                    .violated(|| format!("{id} was not found, and is {stands:?}"));
            }
            Err(_) => {}
        }
    }

    async fn list_builds(&self) {
        let least: Vec<(BuildId, u64)> = self.world.book(|book| {
            let known = book.builds.iter();
            known.map(|(id, asked)| (*id, asked.version)).collect()
        });
        let mut page = BuildPageRequest {
            after: None,
            limit: 3,
        };
        let mut found = Vec::new();
        loop {
            let answer = self
                .ask(|api| async move { api.builds(BuildFilter::default(), page).await })
                .await;
            let Answer::Told(Ok(part)) = answer else {
                return;
            };
            found.extend(part.items);
            page.after = part.next;
            if page.after.is_none() {
                break;
            }
        }
        self.say("builds", found.len() as u128, String::new);
        for (id, least) in least {
            match found.iter().find(|build| build.id == id) {
                Some(build) => self.world.told_build(build, least),
                None => self.world.violated(|| format!("{id} is in no list")),
            }
        }
    }

    /// Follows a log, from its beginning or from where someone has stopped.
    async fn follow(&self) {
        let Some((id, _)) = self.some_build(false) else {
            return;
        };
        let looks = 1 + self.world.below(LOOKS_MAX);
        let from_start = self.world.chance(5000);
        let mut after = self.world.book(|book| match from_start {
            true => LogCursor::default(),
            false => book
                .builds
                .get(&id)
                .map_or_else(LogCursor::default, |asked| asked.read),
        });
        for _ in 0..looks {
            let wait = self.world.lock().rng.millis(0, 6000);
            let least = self.told_version(id);
            let answer = self
                .ask(|api| async move { api.build_log(id, after, wait).await })
                .await;
            let Answer::Told(told) = answer else {
                continue;
            };
            let part = match told {
                Ok(part) => part,
                Err(error) => {
                    self.say("no log", id.uuid().as_u128(), || error.to_string());
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            self.world.told_build(&part.record, least);
            for entry in &part.entries {
                if entry.cursor <= after {
                    self.world
                        .violated(|| format!("{id}: {entry:?} came behind {after:?}"));
                }
                after = entry.cursor;
                self.world.check_read(id, entry);
            }
            self.say("log", part.entries.len() as u128, || {
                format!("{id} until {after:?}, ended: {}", part.ended)
            });
            self.world.book(|book| {
                let asked = book.builds.entry(id).or_default();
                asked.read = asked.read.max(after);
            });
            if part.ended {
                if !part.record.status.ended() {
                    self.world
                        .violated(|| format!("{id}: a log ended before its build"));
                }
                return;
            }
        }
    }

    fn told_version(&self, id: BuildId) -> u64 {
        self.world
            .book(|book| book.builds.get(&id).map_or(0, |asked| asked.version))
    }

    async fn look_at_build(&self) {
        let Some((id, least)) = self.some_build(false) else {
            return;
        };
        let answer = self.ask(|api| async move { api.build(id).await }).await;
        let Answer::Told(told) = answer else {
            return;
        };
        match told {
            Ok(details) => {
                self.say("build", id.uuid().as_u128(), || format!("{details:?}"));
                self.world.told_build(&details.record, least);
            }
            Err(Error::BuildNotFound(_)) => {
                self.world.violated(|| format!("{id} was not found"));
            }
            Err(_) => {}
        }
    }

    /// Makes a sandbox of what builds have made, by its name.
    async fn create_of_build(&self) {
        let name = format!("{BUILT}{}", self.world.below(3));
        let request = CreateSandbox {
            template: Some(name),
            ..CreateSandbox::default()
        };
        let answer = self
            .ask(|api| async move { api.create(request).await })
            .await;
        if let Answer::Told(Ok(record)) = answer {
            self.say("made", record.id.uuid().as_u128(), || record.id.to_string());
            self.world.told_made(&record);
        }
    }
}

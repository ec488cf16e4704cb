//! One attempt at a build, from the claim to its end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tracing::Instrument;

use crate::{
    build::{
        BuildFailure, BuildStep, Checks, Health, LayerKey, Step, context::Context,
        recipe::scope_before,
    },
    engine::{
        builds::{
            command::{builder, failure, is_recipes, shell},
            hold::{Broken, Hold},
            layers::{Chain, Found, leaves_a_layer},
            log::Log,
            program::{Planned, Work, program},
        },
        errors,
    },
    error::{Error, Told},
    id::{SandboxId, TemplateId},
    lifecycle::{
        NewSandbox,
        build::{fail, hand_back},
    },
    planted::{Bug, planted},
    process::{ProcessSpec, WhenFull},
    sandbox::OnTimeout,
    template::{TemplateKind, TemplateRecord},
};

/// How long the process of `START` is looked at before the checks begin.
const START_WAIT: Duration = Duration::from_millis(200);
/// How often a clean-up that failed is tried again here, before it is the reconciler's.
const DESTROY_ATTEMPTS: u32 = 2;

/// Why a build ends without a template.
enum Trouble {
    /// By the recipe's fault.
    Step {
        message: String,
        exit_code: Option<i32>,
    },
    /// By somebody else's.
    Broken(Broken),
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Broken(Broken::Failed(error))
    }
}

fn fault(message: impl Into<String>) -> Trouble {
    Trouble::Step {
        message: message.into(),
        exit_code: None,
    }
}

/// What an attempt knows by now.
struct Progress {
    log: Log,
    context: Option<Context>,
    chain: Option<Chain>,
    /// The recipe's steps whose results were there already.
    done: usize,
    /// What the build makes was there already, as this.
    made: Option<TemplateRecord>,
    /// Whether there is a sandbox.
    sandbox: Option<SandboxId>,
    /// The process of `START`, its step, and how much of its output was read.
    started: Option<(u32, u32, u64)>,
}

impl Progress {
    const fn new(log: Log) -> Self {
        Self {
            log,
            context: None,
            chain: None,
            done: 0,
            made: None,
            sandbox: None,
            started: None,
        }
    }
}

/// How a step ended well.
#[derive(Default)]
struct Done {
    cached: bool,
    exit_code: Option<i32>,
}

impl Hold {
    /// Runs the build to an end, writes that, and removes its sandbox.
    pub(super) async fn run(mut self) {
        let attempt = self.record.attempt;
        tracing::info!(attempt, name = %self.record.name, "build begins");
        let sandbox = self.record.sandbox_id;
        let log = Log::new(Arc::clone(&self.inner), self.record.id, attempt);
        let mut progress = Progress::new(log);
        let bound = self.inner.config.build_timeout;
        let inner = Arc::clone(&self.inner);
        let outcome = {
            let steps = self.run_steps(&mut progress);
            tokio::select! {
                biased;
                outcome = steps => Some(outcome),
                () = inner.clock.sleep(bound) => None,
            }
        };
        let outcome = outcome.unwrap_or_else(|| {
            let message = format!("the build took longer than {} s", bound.as_secs());
            Err((self.record.current_step, fault(message)))
        });
        let unneeded = progress.sandbox.or(sandbox);
        match outcome {
            Ok(template) => tracing::info!(%template, "build succeeded"),
            Err((step, trouble)) => {
                progress.log.settle().await;
                self.end(step, trouble, &progress.log.tail()).await;
            }
        }
        if let Some(sandbox) = unneeded {
            self.remove(sandbox);
        }
    }

    async fn run_steps(&mut self, progress: &mut Progress) -> Result<TemplateId, (u32, Trouble)> {
        let planned = program(&self.record);
        for (number, planned) in (1_u32..).zip(planned) {
            let last = planned.work == Work::Save;
            let begun = self.inner.now();
            let mut step = self.step(number, &planned);
            progress.log.begin_step(number);
            self.progress(number, step.clone())
                .await
                .map_err(|broken| (number, broken.into()))?;
            let span = tracing::info_span!("step", number, phase = planned.phase.as_str());
            let ended = self.work(number, &planned, progress).instrument(span).await;
            step.elapsed_ms = self.elapsed_ms(begun);
            step.dropped_bytes = progress.log.end_step().await;
            match ended {
                Ok(done) => {
                    step.ok = Some(true);
                    step.cached = done.cached;
                    step.exit_code = done.exit_code;
                }
                Err(Trouble::Step { message, exit_code }) => {
                    step.ok = Some(false);
                    step.exit_code = exit_code;
                    // The failure is written with the build's end; this is for those who follow.
                    self.progress(number, step)
                        .await
                        .map_err(|broken| (number, broken.into()))?;
                    return Err((number, Trouble::Step { message, exit_code }));
                }
                Err(trouble) => return Err((number, trouble)),
            }
            if last {
                let made = progress.made.take().ok_or_else(|| {
                    let error = Error::Internal("a build has made nothing".to_owned());
                    (number, Trouble::from(error))
                })?;
                // Who reads that the build has ended reads its whole log.
                progress.log.settle().await;
                let published = self.publish(&made, step).await;
                return published.map_err(|broken| (number, broken.into()));
            }
            self.progress(number, step)
                .await
                .map_err(|broken| (number, broken.into()))?;
        }
        let error = Error::Internal("a build has no last step".to_owned());
        Err((self.record.current_step, error.into()))
    }

    fn step(&self, number: u32, planned: &Planned) -> BuildStep {
        BuildStep {
            build_id: self.record.id,
            attempt: self.record.attempt,
            step: number,
            phase: planned.phase,
            cmd: planned.cmd.clone(),
            exit_code: None,
            ok: None,
            elapsed_ms: 0,
            cached: false,
            dropped_bytes: 0,
        }
    }

    fn elapsed_ms(&self, since: crate::clock::Timestamp) -> u64 {
        let elapsed = self.inner.now().signed_duration_since(since);
        u64::try_from(elapsed.num_milliseconds()).unwrap_or_default()
    }

    async fn work(
        &mut self,
        number: u32,
        planned: &Planned,
        progress: &mut Progress,
    ) -> Result<Done, Trouble> {
        match &planned.work {
            Work::Prepare => self.prepare(progress).await,
            Work::Recipe(place) => self.recipe_step(*place, progress).await,
            Work::Start(line) => self.start(number, line, progress).await,
            Work::Check => self.check(progress).await,
            Work::Save => self.save(progress).await,
        }
    }

    /// Finds what is there already, and makes the sandbox that the rest runs in.
    async fn prepare(&mut self, progress: &mut Progress) -> Result<Done, Trouble> {
        let inner = Arc::clone(&self.inner);
        if let Some(name) = &self.record.context {
            let data = inner
                .store
                .context(name)
                .await
                .map_err(errors::from_store)?;
            let data = data.ok_or_else(|| {
                fault("its context is there no more; upload it again and ask for a new build")
            })?;
            let context = Context::read(data);
            progress.context =
                Some(context.map_err(|problem| fault(format!("the context: {problem}")))?);
        }
        let chain = Chain::of(&self.record, progress.context.as_ref());
        let chain = chain.map_err(|(place, problem)| {
            let step = &self.record.recipe.steps[place.min(self.record.recipe.steps.len() - 1)];
            fault(format!("{step}: {problem}"))
        })?;
        let found = inner.find_layer(&self.record, &chain).await?;
        let last = chain.last();
        progress.chain = Some(chain);
        let mut from = (self.record.base_template.clone(), self.record.base_id);
        if let Some(Found { template, done }) = found {
            inner.touch(&template).await;
            progress.done = done;
            from = (template.name.clone(), template.id);
            let whole =
                last.is_some() && template.layer == last && self.kind() == TemplateKind::Image;
            if whole && self.can_be_named(&template) {
                progress
                    .log
                    .note("the results of all steps are there already");
                progress.made = Some(template);
                return Ok(Done {
                    cached: true,
                    exit_code: None,
                });
            }
        }
        let Some(sandbox) = self.record.sandbox_id else {
            return Err(Error::Internal("a claimed build names no sandbox".to_owned()).into());
        };
        let new = NewSandbox {
            template: from.0,
            template_id: from.1,
            size: self.record.size,
            timeout_sec: None,
            on_timeout: OnTimeout::Destroy,
            metadata: BTreeMap::new(),
            env: BTreeMap::new(),
            idempotency_key: None,
            build_id: (!planted(Bug::BuildSandboxUnnamed)).then_some(self.record.id),
        };
        progress.sandbox = Some(sandbox);
        let team = self.record.team_id;
        let making = inner.create_for_build(new, sandbox, team, builder());
        match self.keep(making).await? {
            Ok(_) => Ok(Done::default()),
            // A layer may go between its finding and its use; the next attempt finds what is there.
            Err(Error::TemplateNotFound(_)) if progress.done > 0 => {
                let gone = "the result of an earlier build is gone".to_owned();
                Err(Error::Unavailable(gone).into())
            }
            Err(error @ (Error::TemplateNotFound(_) | Error::InvalidRequest(_))) => {
                Err(fault(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn kind(&self) -> TemplateKind {
        match self.record.healthcheck {
            Some(_) => TemplateKind::Snapshot,
            None => TemplateKind::Image,
        }
    }

    /// Whether a layer can become the build's template as it is: nobody else has it.
    fn can_be_named(&self, template: &TemplateRecord) -> bool {
        template.state == crate::template::TemplateState::Layer
            || (template.name == self.record.name && template.team_id == self.record.team_id)
    }

    fn sandbox(progress: &Progress) -> Result<SandboxId, Trouble> {
        let none = || Error::Internal("a build's step has no sandbox".to_owned());
        Ok(progress.sandbox.ok_or_else(none)?)
    }

    async fn recipe_step(
        &mut self,
        place: usize,
        progress: &mut Progress,
    ) -> Result<Done, Trouble> {
        let steps = self.record.recipe.steps.clone();
        if place < progress.done || progress.made.is_some() {
            return Ok(Done {
                cached: true,
                exit_code: None,
            });
        }
        let sandbox = Self::sandbox(progress)?;
        let inner = Arc::clone(&self.inner);
        let scope = scope_before(&steps, place);
        let step = &steps[place];
        let mut done = Done::default();
        match step {
            Step::Run {
                command,
                timeout_sec,
            } => {
                let mut spec = shell(command, &scope);
                spec.timeout_ms = timeout_sec.map(|seconds| u64::from(seconds) * 1000);
                done.exit_code = self.command(sandbox, spec, &mut progress.log).await?;
            }
            Step::Copy { .. } => {
                let Some(context) = progress.context.take() else {
                    return Err(fault("there is no context to copy from"));
                };
                let copied = self
                    .keep(inner.copy_into(sandbox, step, &scope, &context, &mut progress.log))
                    .await;
                progress.context = Some(context);
                copied??.map_err(fault)?;
            }
            Step::Workdir { .. } => {
                let workdir = scope_before(&steps, place + 1).workdir;
                let made = self.keep(inner.make_guest_dir(sandbox, &workdir)).await?;
                made?.map_err(fault)?;
            }
            Step::Env { .. } | Step::User { .. } | Step::Start { .. } => {}
        }
        let chain = progress.chain.as_ref();
        let saved_at_the_end =
            self.kind() == TemplateKind::Image && chain.is_some_and(|chain| chain.is_last(place));
        let key = progress
            .chain
            .as_ref()
            .and_then(|chain| chain.keys.get(place));
        if let Some(key) = key.copied()
            && leaves_a_layer(step)
            && !saved_at_the_end
        {
            self.keep_layer(sandbox, key, scope.env).await?;
        }
        Ok(done)
    }

    /// Keeps a step's result for later builds. That it can't be kept costs nothing but time, unless
    /// the sandbox does not go on.
    async fn keep_layer(
        &mut self,
        sandbox: SandboxId,
        key: LayerKey,
        env: BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        let inner = Arc::clone(&self.inner);
        let record = self.record.clone();
        let made = self
            .keep(inner.make_layer(&record, sandbox, TemplateKind::Image, key, env, true))
            .await?;
        match made {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "a step's result not kept");
                let there = inner.record(sandbox).await?;
                match there.state {
                    crate::sandbox::SandboxState::Running => Ok(()),
                    _ => Err(error.into()),
                }
            }
        }
    }

    /// Runs a command of the recipe. What it writes goes into the log.
    async fn command(
        &mut self,
        sandbox: SandboxId,
        spec: ProcessSpec,
        log: &mut Log,
    ) -> Result<Option<i32>, Trouble> {
        let inner = Arc::clone(&self.inner);
        let ended = self.keep(inner.run_command(sandbox, spec, log)).await?;
        match ended {
            Ok(exit) => {
                let code = match exit.status {
                    crate::process::ExitStatus::Code(code) => Some(code),
                    crate::process::ExitStatus::Signal(_) => None,
                };
                match failure(exit) {
                    None => Ok(code),
                    Some(message) => Err(Trouble::Step {
                        message,
                        exit_code: code,
                    }),
                }
            }
            Err(error) if is_recipes(&error) => Err(fault(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    async fn start(
        &mut self,
        number: u32,
        line: &str,
        progress: &mut Progress,
    ) -> Result<Done, Trouble> {
        if self.record.healthcheck.is_none() {
            progress.log.note(
                "not started: without a healthcheck the template holds the disk alone, and no process",
            );
            return Ok(Done::default());
        }
        let sandbox = Self::sandbox(progress)?;
        let steps = &self.record.recipe.steps;
        let scope = scope_before(steps, steps.len().saturating_sub(1));
        let mut spec = shell(line, &scope);
        spec.when_full = WhenFull::DropOldest;
        let inner = Arc::clone(&self.inner);
        let caller = builder();
        let started = self
            .keep(inner.call(&caller, sandbox, |guest| async move {
                guest.start_process(spec, START_WAIT).await
            }))
            .await?;
        let started = match started {
            Err(error) if is_recipes(&error) => return Err(fault(error.to_string())),
            other => other?,
        };
        progress.log.output(&started.output);
        progress.started = Some((started.pid, number, started.output.next_offset));
        match started.output.exit.and_then(failure) {
            // One that goes into the background has ended well.
            None => Ok(Done::default()),
            Some(how) => Err(fault(format!("what START started is not there: {how}"))),
        }
    }

    /// Waits until the result is healthy.
    async fn check(&mut self, progress: &mut Progress) -> Result<Done, Trouble> {
        let Some(check) = self.record.healthcheck.clone() else {
            return Ok(Done::default());
        };
        let sandbox = Self::sandbox(progress)?;
        let steps = self.record.recipe.steps.clone();
        let scope = scope_before(&steps, steps.len());
        let inner = Arc::clone(&self.inner);
        let begun = inner.now();
        let mut checks = Checks::default();
        loop {
            let mut spec = shell(&check.cmd, &scope);
            spec.timeout_ms = Some(u64::from(check.timeout_sec) * 1000);
            let ok = match self.command(sandbox, spec, &mut progress.log).await {
                Ok(_) => true,
                Err(Trouble::Step { message, .. }) => {
                    progress
                        .log
                        .note(format!("check {}: {message}", checks.made + 1));
                    false
                }
                Err(trouble) => return Err(trouble),
            };
            self.read_started(sandbox, progress).await?;
            progress.log.flush().await;
            let waited = Duration::from_millis(self.elapsed_ms(begun));
            match check.after(&mut checks, waited, ok) {
                Health::Healthy => return Ok(Done::default()),
                Health::Again { after } => {
                    let inner = Arc::clone(&inner);
                    self.keep(async move { inner.clock.sleep(after).await })
                        .await?;
                }
                Health::Unhealthy => {
                    return Err(fault(format!(
                        "it was not healthy after {} checks in {} s",
                        checks.made,
                        waited.as_secs()
                    )));
                }
            }
        }
    }

    /// Takes what the process of `START` has written, and notes where it has ended.
    async fn read_started(
        &mut self,
        sandbox: SandboxId,
        progress: &mut Progress,
    ) -> Result<(), Trouble> {
        let Some((pid, of, offset)) = progress.started else {
            return Ok(());
        };
        let inner = Arc::clone(&self.inner);
        let read = self
            .keep(inner.read_build_output(sandbox, pid, offset, Duration::ZERO))
            .await?;
        let output = match read {
            // Too many processes were started since, and it is not listed any more.
            Err(Error::Guest(_)) => {
                progress.started = None;
                return Ok(());
            }
            other => other?,
        };
        progress.log.output(&output);
        progress.started = Some((pid, of, output.next_offset));
        if let Some(how) = output.exit.and_then(failure) {
            return Err(fault(format!(
                "what step {of} started is not there any more: {how}"
            )));
        }
        Ok(())
    }

    /// Makes the template, which nobody sees until it is published.
    async fn save(&mut self, progress: &mut Progress) -> Result<Done, Trouble> {
        if progress.made.is_some() {
            return Ok(Done {
                cached: true,
                exit_code: None,
            });
        }
        let sandbox = Self::sandbox(progress)?;
        let key = progress.chain.as_ref().and_then(|chain| chain.last());
        // A recipe of START alone has a key all the same: that of doing nothing to its base.
        let key = match key {
            Some(key) => key,
            None => nothing_done(&self.record),
        };
        let inner = Arc::clone(&self.inner);
        let (record, kind) = (self.record.clone(), self.kind());
        let steps = &record.recipe.steps;
        let env = scope_before(steps, steps.len()).env;
        let made = self
            .keep(inner.make_layer(&record, sandbox, kind, key, env, false))
            .await??;
        progress.made = Some(made);
        Ok(Done::default())
    }

    /// Writes how the build ended, where that is still for this worker to say.
    async fn end(&mut self, step: u32, trouble: Trouble, tail: &str) {
        let inner = Arc::clone(&self.inner);
        let (written, what) = match trouble {
            Trouble::Step { message, .. } => {
                let message = match tail.is_empty() {
                    true => message,
                    false => format!("{message}; the end of its output:\n{tail}"),
                };
                let failure = BuildFailure {
                    message: format!("step {step}: {message}"),
                    step: Some(step),
                    error_id: None,
                };
                tracing::info!(step, "build failed");
                let written =
                    self.write(|record, stamp| fail(record, failure.clone(), Vec::new(), stamp));
                (written.await, "failure")
            }
            Trouble::Broken(Broken::Elsewhere) => {
                tracing::info!("build ended elsewhere");
                return;
            }
            Trouble::Broken(Broken::Stopping) => {
                let failure = BuildFailure {
                    message: "the platform stopped; the build begins again".to_owned(),
                    step: None,
                    error_id: None,
                };
                let written = self.write(|record, stamp| {
                    hand_back(record, failure.clone(), false, inner.waits_until(), stamp)
                });
                (written.await, "hand-back")
            }
            Trouble::Broken(Broken::Failed(error)) => {
                let failure = self.platforms_failure(step, &error);
                let written = self.write(|record, stamp| {
                    hand_back(record, failure.clone(), true, inner.waits_until(), stamp)
                });
                (written.await, "retry")
            }
        };
        match written {
            Ok(()) | Err(Broken::Elsewhere) => {}
            // Its lease runs out, and then the reconciler sees to it.
            Err(broken) => tracing::warn!(?broken, "{what} not written; left to the reconciler"),
        }
    }

    /// What clients are told of a failure of the platform's.
    fn platforms_failure(&self, step: u32, error: &Error) -> BuildFailure {
        let told = match error.told() {
            // Nobody knows a build's sandbox by its ID.
            Told::Plainly(Error::InvalidState { state, reason, .. }) => {
                let state = state.as_str();
                (format!("its sandbox is {state}: {reason}"), None)
            }
            Told::Plainly(Error::SandboxNotFound(_)) => ("its sandbox is gone".to_owned(), None),
            Told::Plainly(error) => (error.to_string(), None),
            Told::Vaguely(words) => {
                let error_id = self.inner.clock.new_uuid().simple().to_string();
                tracing::error!(error_id, %error, step, "build failed");
                (format!("{words} (error {error_id})"), Some(error_id))
            }
        };
        BuildFailure {
            message: format!("step {step}: {}", told.0),
            step: Some(step),
            error_id: told.1,
        }
    }

    /// Removes the build's sandbox on a task of its own. Where that fails, or where this engine ends
    /// first, the reconciler does it: no build works in it any more.
    fn remove(&self, sandbox: SandboxId) {
        let inner = Arc::clone(&self.inner);
        let removed = self.inner.tasks.spawn(async move {
            for _ in 0..DESTROY_ATTEMPTS {
                match inner.destroy(sandbox, &builder().actor).await {
                    Ok(()) | Err(Error::SandboxNotFound(_)) => return,
                    Err(error) => {
                        tracing::warn!(%sandbox, %error, "a build's sandbox not removed yet");
                    }
                }
            }
            inner.nudge.notify_one();
        });
        if let Err(error) = removed {
            tracing::debug!(%sandbox, %error, "left to the reconciler");
        }
    }
}

/// The key of a recipe that has not one step.
fn nothing_done(record: &crate::build::BuildRecord) -> LayerKey {
    let nothing: [Step; 1] = [Step::Env { vars: Vec::new() }];
    crate::build::recipe::layers(record.base_id, record.size, &nothing, &[])
        .ok()
        .and_then(|keys| keys.first().copied())
        .unwrap_or_else(|| LayerKey::from([0; 32]))
}

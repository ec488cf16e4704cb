//! One wait for a wake-up, on a task of its own.
//!
//! ```text
//!   connection ──► BLPOP ──┬── a wake-up ──► handed over ── nobody there ──► put back
//!       ▲                  ├── nothing ────► patience has run out
//!       │                  ├── failed, hung ──► the connection goes
//!       └── backoff ◄──────┘
//!                          └── the caller goes ──► CLIENT UNBLOCK ──► nothing, or put back
//! ```

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use fred::{
    error::{Error, ErrorKind},
    interfaces::{ClientInterface, ListInterface},
};
use sandbox_core::{id::BuildId, queue::QueueError};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Shared,
    links::{Link, Trouble},
};

/// Less patience than this is none: the server is asked once.
const WAIT_MIN: Duration = Duration::from_millis(40);
/// How long the server may take to say that nothing came, so that this is told from no answer at all.
/// It looks at the clock ten times a second. The caller's patience ends so much later than the
/// server's; where there is too little of it, the call does.
const MARGIN: Duration = Duration::from_secs(1);
/// How often a server is told to end a wait, since that may be overtaken by the wait itself.
const UNBLOCK_INTERVAL: Duration = Duration::from_millis(50);

type Answer = Result<Option<Taken>, QueueError>;

/// A wake-up that was taken from the list. It goes back unless somebody keeps it.
pub(super) struct Taken {
    held: Option<(BuildId, Arc<Shared>, OwnedSemaphorePermit)>,
}

impl Taken {
    #[expect(clippy::expect_used, reason = "only this and the end take it out")]
    pub(super) fn keep(mut self) -> BuildId {
        self.held.take().expect("there until it is kept").0
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some((id, shared, turn)) = self.held.take() else {
            return;
        };
        // Without a runtime the process ends, and another one looks at the store.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let put = timeout(shared.command_timeout, shared.push(id, true)).await;
            if !matches!(put, Ok(Ok(()))) {
                tracing::debug!(%id, "a wake-up could not be put back");
            }
            drop(turn);
        });
    }
}

/// How a wait ended.
enum Popped {
    Got(BuildId),
    Nothing,
    Failed(Trouble),
    /// The caller has gone.
    GivenUp(Option<BuildId>),
}

/// Waits, hands over, and leaves nothing behind.
pub(super) async fn run(
    shared: Arc<Shared>,
    turn: OwnedSemaphorePermit,
    deadline: Instant,
    mut answer: oneshot::Sender<Answer>,
) {
    let take = |id| Taken {
        held: Some((id, Arc::clone(&shared), turn)),
    };
    let mut trouble = None;
    // A call without patience has time for one question.
    let last = deadline.max(Instant::now() + WAIT_MIN);
    let result = loop {
        let link = tokio::select! {
            () = answer.closed() => return,
            link = timeout_at(limit(&shared, last, deadline), shared.links.get()) => link,
        };
        let popped = match link {
            Ok(Ok(link)) => pop(&shared, link, deadline, &mut answer).await,
            Ok(Err(problem)) => Popped::Failed(problem),
            Err(_) => {
                let problem = trouble.unwrap_or_else(|| Trouble(shared.links.no_answer()));
                break Err(QueueError::Unavailable(problem.0));
            }
        };
        match popped {
            Popped::Got(id) => break Ok(Some(take(id))),
            Popped::Nothing => break Ok(None),
            Popped::GivenUp(id) => {
                drop(id.map(take));
                return;
            }
            Popped::Failed(problem) => {
                tracing::debug!(problem = problem.0, "a wait for wake-ups was cut short");
                if Instant::now() >= deadline {
                    break Err(QueueError::Unavailable(problem.0));
                }
                trouble = Some(problem);
            }
        }
    };
    // Where nobody is there any more, what was taken goes back as it is dropped.
    drop(answer.send(result));
}

/// Until when a connection may come.
fn limit(shared: &Shared, last: Instant, deadline: Instant) -> Instant {
    if last > deadline {
        last + shared.command_timeout
    } else {
        deadline
    }
}

async fn pop(
    shared: &Shared,
    link: Link,
    deadline: Instant,
    answer: &mut oneshot::Sender<Answer>,
) -> Popped {
    let patience = deadline.saturating_duration_since(Instant::now());
    if patience < WAIT_MIN {
        return pop_at_once(shared, link).await;
    }
    let server_patience = patience - (patience / 4).min(MARGIN);
    let answer_by = Instant::now() + server_patience + MARGIN;
    let client = link.client().clone();
    let reply = async {
        let reply: Result<(String, String), Error> = client
            .blpop(&shared.key, server_patience.as_secs_f64())
            .await;
        match reply {
            Ok((_, text)) => Ok(Some(text)),
            // The client makes this of the server's answer that nothing came. No other limit is set.
            Err(error) if *error.kind() == ErrorKind::Timeout => Ok(None),
            Err(error) => Err(error),
        }
    };
    let mut reply = pin!(reply);
    let given_up = tokio::select! {
        biased;
        reply = timeout_at(answer_by, &mut reply) => {
            let Ok(reply) = reply else {
                shared.links.hung(link);
                return Popped::Failed(Trouble(shared.links.no_answer()));
            };
            return settle(shared, link, reply);
        }
        () = answer.closed() => unblocked(shared, &link, reply.as_mut()),
    };
    match timeout(shared.command_timeout, given_up).await {
        Ok(reply) => match settle(shared, link, reply) {
            Popped::Got(id) => Popped::GivenUp(Some(id)),
            _ => Popped::GivenUp(None),
        },
        Err(_) => {
            shared.links.hung(link);
            Popped::GivenUp(None)
        }
    }
}

/// Has the server end a wait; returns what it ended with.
async fn unblocked(
    shared: &Shared,
    link: &Link,
    mut reply: std::pin::Pin<&mut impl Future<Output = Result<Option<String>, Error>>>,
) -> Result<Option<String>, Error> {
    loop {
        let tell = async {
            if let (Some(id), Ok(other)) = (link.id(), shared.links.get().await) {
                let told: Result<i64, _> = other.client().client_unblock(id, None).await;
                match told {
                    Ok(_) => shared.links.give_back(other),
                    Err(error) => drop(shared.links.failed(other, &error)),
                }
            }
            sleep(UNBLOCK_INTERVAL).await;
        };
        tokio::select! {
            biased;
            reply = reply.as_mut() => return reply,
            () = tell => {}
        }
    }
}

async fn pop_at_once(shared: &Shared, link: Link) -> Popped {
    let client = link.client().clone();
    let reply = client.lpop::<Option<String>, _>(&shared.key, None);
    match timeout(shared.command_timeout, reply).await {
        Ok(reply) => settle(shared, link, reply),
        Err(_) => {
            shared.links.hung(link);
            Popped::Failed(Trouble(shared.links.no_answer()))
        }
    }
}

fn settle(shared: &Shared, link: Link, reply: Result<Option<String>, Error>) -> Popped {
    match reply {
        Ok(text) => {
            shared.links.give_back(link);
            match text.map(|text| text.parse()) {
                Some(Ok(id)) => Popped::Got(id),
                None => Popped::Nothing,
                Some(Err(error)) => {
                    Popped::Failed(Trouble(format!("the list holds no build: {error}")))
                }
            }
        }
        Err(error) => Popped::Failed(shared.links.failed(link, &error)),
    }
}

//! What is counted, in the format that Prometheus reads.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};
use sandbox_core::{
    engine::EndedOperation,
    sandbox::SandboxState,
    store::{Store, StoreError},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

/// For how long a count of the sandboxes is good enough.
const COUNT_LASTS: Duration = Duration::from_secs(5);
/// What the store has to count them.
const COUNT_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// The daemon's counters. Clones are the same ones: every request has some.
#[derive(Clone)]
pub struct Metrics(Arc<Counters>);

struct Counters {
    registry: Registry,
    requests: Family<Answered, Counter>,
    durations: Family<Route, Histogram>,
    operations: Family<Ended, Counter>,
    operation_durations: Family<Kind, Histogram>,
    sandboxes: Family<State, Gauge>,
    counted_at: Mutex<Option<Instant>>,
    connections: Gauge,
    refused: Counter,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut counters = Counters {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(durations),
            operations: Family::default(),
            operation_durations: Family::new_with_constructor(durations),
            sandboxes: Family::default(),
            counted_at: Mutex::default(),
            connections: Gauge::default(),
            refused: Counter::default(),
        };
        let mut registry = Registry::with_prefix("sandboxd");
        registry.register(
            "build",
            "The version that runs",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "http_requests",
            "Requests that were answered",
            counters.requests.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "Time from a request's head to its answer's",
            counters.durations.clone(),
        );
        registry.register(
            "http_connections",
            "Connections that are open",
            counters.connections.clone(),
        );
        registry.register(
            "http_connections_refused",
            "Connections that were refused because there were too many",
            counters.refused.clone(),
        );
        registry.register(
            "operations",
            "Operations on sandboxes that ended, as this daemon saw them end",
            counters.operations.clone(),
        );
        registry.register(
            "operation_duration_seconds",
            "Time from an operation's beginning to its end",
            counters.operation_durations.clone(),
        );
        registry.register(
            "sandboxes",
            "Sandboxes in the store, some seconds old at most",
            counters.sandboxes.clone(),
        );
        counters.registry = registry;
        Self(Arc::new(counters))
    }
}

impl Metrics {
    /// Connections that are open now.
    pub(crate) fn connections(&self) -> &Gauge {
        &self.0.connections
    }

    /// Connections that were refused because there were too many.
    pub(crate) fn refused(&self) -> &Counter {
        &self.0.refused
    }

    /// Counts an answer. `route` is the pattern of the path, never the path: labels must be few.
    pub(crate) fn answered(
        &self,
        method: &axum::http::Method,
        route: Option<&str>,
        status: u16,
        took: Duration,
    ) {
        let route = route.unwrap_or("none").to_owned();
        let answered = Answered {
            method: known(method),
            route: route.clone(),
            status,
        };
        self.0.requests.get_or_create(&answered).inc();
        self.0
            .durations
            .get_or_create(&Route { route })
            .observe(took.as_secs_f64());
    }

    /// Counts an operation that ended. For [`Engine::on_operation_end`].
    ///
    /// [`Engine::on_operation_end`]: sandbox_core::engine::Engine::on_operation_end
    pub fn operation_ended(&self, ended: &EndedOperation) {
        let kind = ended.kind.as_str();
        let outcome = if ended.succeeded {
            "succeeded"
        } else {
            "failed"
        };
        let labels = Ended { kind, outcome };
        self.0.operations.get_or_create(&labels).inc();
        self.0
            .operation_durations
            .get_or_create(&Kind { kind })
            .observe(ended.took.as_secs_f64());
    }

    /// Counts the sandboxes in the store, by one question, where the last count is too old. Where
    /// the store does not answer there is no count, rather than a wrong one.
    pub(crate) async fn count_sandboxes(&self, store: &dyn Store) {
        let mut counted_at = self.0.counted_at.lock().await;
        if counted_at.is_some_and(|at| at.elapsed() < COUNT_LASTS) {
            return;
        }
        let counting = timeout(COUNT_TIMEOUT, store.count_sandboxes()).await;
        let late = |_| Err(StoreError::Unavailable("no answer in time".to_owned()));
        match counting.unwrap_or_else(late) {
            Ok(counts) => {
                for state in SandboxState::ALL {
                    let found = counts.iter().find(|(counted, _)| *counted == state);
                    let count = found.map_or(0, |(_, count)| *count);
                    let state = state.as_str();
                    let gauge = self.0.sandboxes.get_or_create(&State { state });
                    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
                }
                *counted_at = Some(Instant::now());
            }
            Err(error) => {
                tracing::warn!(%error, "the sandboxes can't be counted");
                self.0.sandboxes.clear();
                *counted_at = None;
            }
        }
    }

    /// All of it, as text.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

/// From 1 ms to 262 s.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 10))
}

/// A client may invent methods; labels may not grow with them.
fn known(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        _ => "other",
    }
}

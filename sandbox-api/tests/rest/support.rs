//! A server of the test's own, and what it takes to ask it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use sandbox_api::{AppState, Keyring, Limits, Metrics, router, serve};
use sandbox_core::{
    api::Api,
    audit::Actor,
    caller::Caller,
    engine::{Engine, EngineConfig, Parts},
    host::Host,
    id::TeamId,
    sim::{MemoryStore, SimClock, SimHost, SimQueue},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) const KEY: &str = "sbk_test";
/// Two teams' keys, and their IDs.
pub(crate) const TEAMS: [(&str, u128); 2] = [("sbk_team_a", 0xa), ("sbk_team_b", 0xb)];
/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) host: SimHost,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) stopping: CancellationToken,
    pub(crate) client: reqwest::Client,
    router: Router,
    serving: JoinHandle<std::io::Result<()>>,
    engine: Engine,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::reaching(limits, |host| Arc::new(host)).await
    }

    /// A server that reaches its host in this way.
    pub(crate) async fn reaching(
        limits: Limits,
        reach: impl FnOnce(SimHost) -> Arc<dyn Host>,
    ) -> Self {
        let clock = Arc::new(SimClock::new());
        let host = SimHost::new(clock.clone());
        let store = Arc::new(MemoryStore::new());
        let parts = Parts {
            store: store.clone(),
            host: reach(host.clone()),
            queue: Arc::new(SimQueue::new()),
            clock,
        };
        let engine = Engine::start(parts.clone(), EngineConfig::DEFAULT)
            .await
            .unwrap();
        let stopping = CancellationToken::new();
        let metrics = Metrics::default();
        let counting = metrics.clone();
        engine.on_operation_end(move |ended| counting.operation_ended(ended));
        let admin = Caller::admin(Actor::api_key("admin-key"));
        let mut keys = Keyring::new().with(KEY, Arc::new(engine.api(admin)));
        for (key, number) in TEAMS {
            let team_id = TeamId::from_uuid(Uuid::from_u128(number));
            let caller = Caller::team(Actor::api_key(team_id.to_string()), team_id);
            keys = keys.with(key, Arc::new(engine.api(caller)));
        }
        let state = AppState {
            keys,
            store: parts.store,
            host: parts.host,
            clock: parts.clock,
            limits,
            metrics: metrics.clone(),
            stopping: stopping.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = router(state).unwrap();
        let served = router.clone();
        let serving = tokio::spawn(serve(listener, served, limits, metrics, stopping.clone()));
        Self {
            address,
            host,
            store,
            stopping,
            client: reqwest::Client::builder().timeout(LONG).build().unwrap(),
            router,
            serving,
            engine,
        }
    }

    /// Stops as the daemon does, and waits for the end.
    pub(crate) async fn stop(self) {
        self.stopping.cancel();
        self.engine.shutdown().await;
        timeout(LONG, self.serving).await.unwrap().unwrap().unwrap();
    }

    /// What the daemon's other doors open on.
    pub(crate) fn api(&self) -> Arc<dyn Api> {
        Arc::new(self.engine.api(Caller::admin(Actor::app())))
    }

    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.client.request(method, url)
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).header("X-API-Key", KEY)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path).send().await.unwrap()
    }

    /// The body of an answer without a connection: what is sent of it is the test's to say.
    pub(crate) async fn body(&self, path: &str) -> Body {
        let request = Request::get(path).header("X-API-Key", KEY);
        let request = request.body(Body::empty()).unwrap();
        let service = TowerToHyperService::new(self.router.clone());
        let response = service.call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Response {
        self.ask(Method::POST, path)
            .json(&body)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn delete(&self, path: &str) -> Response {
        self.ask(Method::DELETE, path).send().await.unwrap()
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        self.ask(Method::PUT, path).body(body).send().await.unwrap()
    }

    /// An image of this name, the platform's.
    pub(crate) async fn image(&self, name: &str) {
        let source = json!({"type": "tar", "path": "/srv/root.tar"});
        let body = json!({"name": name, "source": source});
        let made = self.post("/v1/admin/templates?wait=true", body);
        answer(made.await, 201).await;
    }

    /// A running sandbox's path.
    pub(crate) async fn sandbox(&self) -> String {
        let created = self.post("/v1/sandboxes", json!({})).await;
        let created = answer(created, 201).await;
        format!("/v1/sandboxes/{}", created["id"].as_str().unwrap())
    }

    /// A started process's path.
    pub(crate) async fn process(&self, sandbox: &str, body: Value) -> String {
        let started = self.post(&format!("{sandbox}/processes"), body).await;
        let started = answer(started, 201).await;
        format!("{sandbox}/processes/{}", started["pid"])
    }

    /// Sends bytes as they are and gives what comes back until the server closes, or says nothing
    /// for a while.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        read_all(&mut stream).await
    }
}

/// What comes until the other end closes.
pub(crate) async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = timeout(LONG, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The JSON of an answer that must have this status.
#[track_caller]
pub(crate) fn answer(response: Response, status: u16) -> impl Future<Output = Value> + Send {
    let place = std::panic::Location::caller();
    async move {
        let got = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(got.as_u16(), status, "{place}: {text}");
        if got == StatusCode::NO_CONTENT {
            assert_eq!(text, "", "{place}");
            return Value::Null;
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{place}: {error}: {text}"))
    }
}

/// The message of a failure that must have this status and code, and nothing else in its body.
#[track_caller]
pub(crate) fn failure(
    response: Response,
    status: u16,
    code: &str,
) -> impl Future<Output = String> + Send {
    let code = code.to_owned();
    let place = std::panic::Location::caller();
    let answer = answer(response, status);
    async move {
        let body = answer.await;
        let message = body["error"]["message"].as_str().unwrap_or_default();
        let expected = json!({"error": {"code": code, "message": message}});
        assert_eq!(body, expected, "{place}");
        assert!(!message.is_empty(), "{place}");
        message.to_owned()
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let until = tokio::time::Instant::now() + LONG;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < until, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

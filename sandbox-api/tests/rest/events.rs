//! Reading server-sent events.

use futures::StreamExt;
use reqwest::Response;
use serde_json::Value;

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<u64>,
    pub(crate) data: Value,
}

/// Reads events until the stream ends, or there are `most`.
pub(crate) async fn events(response: Response, most: usize) -> Vec<Event> {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut bytes = response.bytes_stream();
    let mut text = String::new();
    let mut events = Vec::new();
    while events.len() < most {
        let Some(piece) = bytes.next().await else {
            break;
        };
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        while let Some((block, rest)) = text.split_once("\n\n") {
            let field = |name: &str| {
                let lines = block.lines();
                lines
                    .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                    .next()
                    .map(str::to_owned)
            };
            if let Some(name) = field("event") {
                events.push(Event {
                    name,
                    id: field("id").map(|id| id.parse().unwrap()),
                    data: serde_json::from_str(&field("data").unwrap()).unwrap(),
                });
            }
            text = rest.to_owned();
        }
    }
    events
}

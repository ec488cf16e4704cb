use reqwest::Method;

use crate::support::{KEY, Server, answer, failure};

#[tokio::test]
async fn a_key_is_needed_for_everything_under_v1() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    for (method, path) in [
        (Method::GET, "/v1/sandboxes".to_owned()),
        (Method::POST, "/v1/sandboxes".to_owned()),
        (Method::GET, sandbox.clone()),
        (Method::DELETE, sandbox.clone()),
        (Method::POST, format!("{sandbox}/exec")),
        (Method::GET, format!("{sandbox}/files?path=/etc/hostname")),
        (Method::PUT, format!("{sandbox}/files?path=/x")),
        (Method::GET, format!("{sandbox}/pty")),
        (Method::POST, format!("{sandbox}/pause")),
        (Method::GET, "/v1/operations/op-x".to_owned()),
        (Method::GET, "/v1/snapshots".to_owned()),
    ] {
        let none = server.bare(method.clone(), &path).send().await.unwrap();
        assert_eq!(none.headers()["www-authenticate"], "Bearer", "{path}");
        failure(none, 401, "unauthorized").await;
        for (name, value) in [
            ("X-API-Key", "sbk_wrong"),
            ("X-API-Key", ""),
            ("Authorization", "Bearer sbk_wrong"),
            ("Authorization", "Basic c2JrX3Rlc3Q="),
            ("Authorization", KEY),
        ] {
            let asked = server.bare(method.clone(), &path).header(name, value);
            failure(asked.send().await.unwrap(), 401, "unauthorized").await;
        }
    }
    answer(server.get(&sandbox).await, 200).await;
}

#[tokio::test]
async fn a_key_is_taken_from_either_header() {
    let server = Server::start().await;
    for (name, value) in [
        ("X-API-Key", KEY.to_owned()),
        ("Authorization", format!("Bearer {KEY}")),
        ("authorization", format!("bearer {KEY}")),
    ] {
        let asked = server
            .bare(Method::GET, "/v1/sandboxes")
            .header(name, value);
        answer(asked.send().await.unwrap(), 200).await;
    }
}

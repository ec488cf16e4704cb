use std::time::Duration;

use futures::StreamExt;
use reqwest::Method;
use sandbox_core::{
    host::HostError,
    sim::{Call, When},
};
use serde_json::{Value, json};

use crate::support::{Server, answer, eventually, failure};

const MIB: usize = 1024 * 1024;

/// Bytes that are neither zeros nor the same everywhere.
fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at * 7) as u8).collect()
}

#[tokio::test]
async fn r6_files_go_in_and_out_byte_for_byte_at_any_size() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    for size in [0, 1, 512 * 1024, 512 * 1024 + 1, 9 * MIB] {
        let path = format!("{sandbox}/files?path=/data/f{size}");
        let content = noise(size);
        let stat = answer(server.put(&path, content.clone()).await, 200).await;
        assert_eq!(stat["size_bytes"], size);
        assert_eq!(stat["type"], "file");
        let read = server.get(&path).await;
        assert_eq!(read.status(), 200);
        assert_eq!(read.headers()["content-type"], "application/octet-stream");
        assert_eq!(read.headers()["x-content-type-options"], "nosniff");
        assert_eq!(read.headers()["content-length"], size.to_string());
        assert!(read.bytes().await.unwrap() == content, "{size}");
    }
}

#[tokio::test]
async fn r6_zeros_survive() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let path = format!("{sandbox}/files?path=/sparse");
    let mut content = vec![0; 5 * MIB];
    content[3 * MIB] = 1;
    answer(server.put(&path, content.clone()).await, 200).await;
    assert!(server.get(&path).await.bytes().await.unwrap() == content);
}

#[tokio::test]
async fn r6_a_body_without_a_length_is_taken_as_it_comes() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let path = format!("{sandbox}/files?path=/streamed");
    let pieces = (0..7).map(|n| Ok::<_, std::io::Error>(vec![n + 1; 300_000]));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let stat = answer(server.put(&path, body).await, 200).await;
    assert_eq!(stat["size_bytes"], 2_100_000);
    let read = server.get(&path).await.bytes().await.unwrap();
    assert!(
        read.chunks(300_000)
            .zip(1..)
            .all(|(piece, n)| piece.iter().all(|b| *b == n))
    );
}

#[tokio::test]
async fn r6_a_write_that_is_cut_off_leaves_the_old_file() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let path = format!("{sandbox}/files?path=/kept");
    answer(server.put(&path, "old").await, 200).await;
    let pieces = futures::stream::iter([Ok(vec![1; MIB])]).chain(futures::stream::once(async {
        Err(std::io::Error::other("the client breaks off"))
    }));
    let sent = server
        .ask(Method::PUT, &path)
        .body(reqwest::Body::wrap_stream(pieces))
        .send()
        .await;
    assert!(sent.is_err(), "{sent:?}");
    assert_eq!(server.get(&path).await.text().await.unwrap(), "old");
}

#[tokio::test]
async fn r6_a_write_that_fails_in_the_sandbox_says_so() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let path = format!("{sandbox}/files?path=/x");
    server.host.delay(Call::Guest, Duration::ZERO);
    let lost = HostError::Unavailable("lost".to_owned());
    server.host.fail_always(Call::Guest, When::Before, lost);
    failure(server.put(&path, noise(3 * MIB)).await, 503, "unavailable").await;
    server.host.heal();
    failure(server.get(&path).await, 404, "not_found").await;
}

#[tokio::test]
async fn r6_modes_are_octal() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let put = async |query: &str| {
        let path = format!("{sandbox}/files?{query}");
        server.put(&path, "x").await
    };
    let stat = answer(put("path=/run.sh&mode=0755").await, 200).await;
    assert_eq!(stat["mode"], "0755");
    let stat = answer(put("path=/plain").await, 200).await;
    assert_eq!(stat["mode"], "0644");
    for bad in [
        "path=/y&mode=rwx",
        "path=/y&mode=99999",
        "path=relative",
        "mode=0644",
        "path=",
    ] {
        failure(put(bad).await, 400, "invalid_request").await;
    }
    failure(
        put("path=/none/there&parents=false").await,
        404,
        "not_found",
    )
    .await;
}

#[tokio::test]
async fn r6_directories_are_made_listed_page_by_page_and_removed() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let files = format!("{sandbox}/files");
    let made = server
        .post(&format!("{files}/mkdir"), json!({"path": "/d/e"}))
        .await;
    assert_eq!(answer(made, 201).await["type"], "directory");
    let again = server
        .post(&format!("{files}/mkdir"), json!({"path": "/d/e"}))
        .await;
    answer(again, 201).await;
    let strict = json!({"path": "/d/e", "parents": false});
    let there = server.post(&format!("{files}/mkdir"), strict).await;
    failure(there, 409, "already_exists").await;
    for number in 0..5 {
        answer(
            server.put(&format!("{files}?path=/d/f{number}"), "x").await,
            200,
        )
        .await;
    }
    let mut names = Vec::new();
    let mut query = "path=/d&limit=2".to_owned();
    loop {
        let page = answer(server.get(&format!("{files}/list?{query}")).await, 200).await;
        let items = page["items"].as_array().unwrap();
        names.extend(
            items
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        query = format!("path=/d&limit=2&cursor={cursor}");
    }
    assert_eq!(names, ["e", "f0", "f1", "f2", "f3", "f4"]);
    let full = server.delete(&format!("{files}?path=/d")).await;
    failure(full, 409, "invalid_state").await;
    answer(server.delete(&format!("{files}?path=/d/f0")).await, 204).await;
    answer(
        server
            .delete(&format!("{files}?path=/d&recursive=true"))
            .await,
        204,
    )
    .await;
    let gone = server.get(&format!("{files}/list?path=/d")).await;
    failure(gone, 404, "not_found").await;
    for bad in [
        "path=/&limit=0",
        "path=/&limit=1001",
        "path=/&cursor=?",
        "limit=1",
    ] {
        failure(
            server.get(&format!("{files}/list?{bad}")).await,
            400,
            "invalid_request",
        )
        .await;
    }
}

#[tokio::test]
async fn r6_files_are_moved_and_described() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let files = format!("{sandbox}/files");
    answer(
        server.put(&format!("{files}?path=/a"), "content").await,
        200,
    )
    .await;
    let moved = server
        .post(&format!("{files}/move"), json!({"from": "/a", "to": "/b"}))
        .await;
    assert_eq!(answer(moved, 200).await["name"], "b");
    let stat = answer(server.get(&format!("{files}/stat?path=/b")).await, 200).await;
    assert_eq!(stat["size_bytes"], 7);
    assert_eq!(stat["target"], Value::Null);
    assert!(stat["modified_at"].as_str().unwrap().ends_with('Z'));
    failure(
        server.get(&format!("{files}/stat?path=/a")).await,
        404,
        "not_found",
    )
    .await;
    let gone = server
        .post(&format!("{files}/move"), json!({"from": "/a", "to": "/b"}))
        .await;
    failure(gone, 404, "not_found").await;
    for body in [
        json!({"from": "/a"}),
        json!({"from": "/a", "to": "/b", "x": 1}),
    ] {
        let refused = server.post(&format!("{files}/move"), body).await;
        failure(refused, 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_and_a_directory_are_told_apart() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    failure(
        server.get(&format!("{sandbox}/files?path=/none")).await,
        404,
        "not_found",
    )
    .await;
    failure(
        server.get(&format!("{sandbox}/files?path=/")).await,
        409,
        "invalid_state",
    )
    .await;
    failure(
        server.get(&format!("{sandbox}/files?path=a")).await,
        400,
        "invalid_request",
    )
    .await;
    failure(
        server.get(&format!("{sandbox}/files")).await,
        400,
        "invalid_request",
    )
    .await;
}

#[tokio::test]
async fn a_download_that_is_replaced_meanwhile_breaks_instead_of_mixing() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let path = format!("{sandbox}/files?path=/f");
    answer(server.put(&path, vec![1; 8 * MIB]).await, 200).await;
    server.host.delay(Call::Guest, Duration::from_millis(20));
    let mut old = server.get(&path).await.bytes_stream();
    let mut got = old.next().await.unwrap().unwrap().to_vec();
    server.host.heal();
    answer(server.put(&path, vec![2; 8 * MIB]).await, 200).await;
    let mut broken = false;
    while let Some(piece) = old.next().await {
        match piece {
            Ok(piece) => got.extend_from_slice(&piece),
            Err(_) => broken = true,
        }
    }
    assert!(got.iter().all(|byte| *byte == 1), "two files were mixed");
    assert!(broken || got.len() == 8 * MIB);
}

#[tokio::test]
async fn a_reader_that_goes_away_stops_the_reading() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let path = format!("{sandbox}/files?path=/f");
    answer(server.put(&path, noise(32 * MIB)).await, 200).await;
    let mut reading = server.get(&path).await.bytes_stream();
    reading.next().await.unwrap().unwrap();
    drop(reading);
    eventually("the guest is asked no more", || async {
        let before = server.host.count(Call::Guest);
        tokio::time::sleep(Duration::from_millis(50)).await;
        (server.host.count(Call::Guest) == before).then_some(())
    })
    .await;
    assert!(server.host.count(Call::Guest) < 200);
}

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;

use crate::support::{Server, answer};

async fn document() -> Value {
    let server = Server::start().await;
    let got = server
        .bare(Method::GET, "/openapi.json")
        .send()
        .await
        .unwrap();
    answer(got, 200).await
}

/// One snapshot of the whole: a change of the interface shows in review.
#[tokio::test]
async fn r43_the_openapi_document_is_the_one_that_was_agreed_on() {
    let document = document().await;
    assert_eq!(
        serde_json::to_value(sandbox_api::openapi()).unwrap(),
        document
    );
    insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap());
}

#[tokio::test]
async fn r43_every_operation_says_what_it_is_and_how_it_fails() {
    let document = document().await;
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{place}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{place}: {id} is there twice");
            if !path.starts_with("/v1/") {
                continue;
            }
            for status in ["400", "401", "500", "503"] {
                let failure = &operation["responses"][status]["content"]["application/json"];
                let shape = "#/components/schemas/ErrorBody";
                assert_eq!(failure["schema"]["$ref"], shape, "{place} {status}");
            }
        }
    }
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    fn references<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document().await;
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

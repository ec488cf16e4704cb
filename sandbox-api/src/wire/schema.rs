//! Descriptions of fields that the types alone say too little about, for the document.

use utoipa::openapi::{
    RefOr,
    extensions::Extensions,
    schema::{
        AdditionalProperties, ArrayBuilder, Object, ObjectBuilder, OneOf, OneOfBuilder, Schema,
        SchemaType, Type,
    },
};

const NO_NUL: &str = "^[^\\x00]*$";
/// With something in it that can be seen.
const NOT_BLANK: &str = "^[^\\x00]*[!-~][^\\x00]*$";

fn or_null(kind: Type) -> SchemaType {
    SchemaType::from_iter([kind, Type::Null])
}

fn text(pattern: &str, length_max: Option<usize>) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
        .max_length(length_max)
        .build()
}

fn map(description: &str, name: Object, value: Object, most: usize) -> Schema {
    ObjectBuilder::new()
        .schema_type(or_null(Type::Object))
        .description(Some(description))
        .property_names(Some(name))
        .additional_properties(Some(Schema::from(value)))
        .max_properties(Some(most))
        .into()
}

/// Environment variables.
pub(super) fn environment() -> Schema {
    let name = text("^[^=\\x00]+$", Some(256));
    map("Environment variables.", name, text(NO_NUL, None), 256)
}

/// Labels.
pub(super) fn labels() -> Schema {
    let name = text("^[^\\x00]+$", Some(128));
    let value = text(NO_NUL, Some(1024));
    map("Your own labels, to find the sandbox by.", name, value, 64)
}

/// Arguments of a program.
pub(super) fn arguments() -> Schema {
    ArrayBuilder::new()
        .schema_type(or_null(Type::Array))
        .description(Some("Arguments of the program."))
        .items(text(NO_NUL, None))
        .into()
}

/// Names of Debian's packages.
pub(super) fn packages() -> Schema {
    ArrayBuilder::new()
        .schema_type(or_null(Type::Array))
        .description(Some("Packages beside the base system."))
        .items(text("^[a-z0-9][a-z0-9+.-]*$", Some(128)))
        .max_items(Some(256))
        .into()
}

/// Adds to each of a body's variants that other fields are refused.
pub(crate) fn no_other_fields(body: &mut OneOf) {
    for variant in &mut body.items {
        if let RefOr::T(Schema::Object(variant)) = variant {
            let none = AdditionalProperties::FreeForm(false);
            variant.additional_properties = Some(Box::new(none));
        }
    }
}

/// Adds to a body that a field and its `_base64` twin go not together.
pub(crate) fn either_or_base64(body: &mut Object, field: &str) {
    let twin = format!("{field}_base64");
    let given = serde_json::json!({"type": "string"});
    let both = serde_json::json!({
        "required": [field, twin],
        "properties": {(field): given, (twin): given},
    });
    let extensions: &mut Extensions = body.extensions.get_or_insert_default();
    extensions.insert("not".to_owned(), both);
}

/// A recipe: a list of entries, or one text.
pub(super) fn recipe() -> Schema {
    let list = ArrayBuilder::new()
        .items(text(NOT_BLANK, Some(65_536)))
        .min_items(Some(1))
        .max_items(Some(256));
    let whole = text(NOT_BLANK, Some(262_144));
    OneOfBuilder::new()
        .item(list)
        .item(whole)
        .description(Some(
            "What is run: a list, each entry of which is a shell command, or begins with `RUN`, \
             `ENV`, `WORKDIR`, `USER`, `COPY` or `START` in capitals; or one text, such as the \
             content of a Dockerfile. `START`, at most once and last, starts a process that runs on \
             in the snapshot. What can't be read is refused with its line and column.",
        ))
        .examples([serde_json::json!([
            "python3 -m venv /srv/venv",
            "WORKDIR /srv",
            "COPY app .",
            "START python3 -m http.server 8000",
        ])])
        .into()
}

/// A healthcheck: its command alone, or all that can be said.
pub(super) fn healthcheck() -> Schema {
    let cmd = || text(NOT_BLANK, Some(65_536));
    let seconds = |min: i32| {
        ObjectBuilder::new()
            .schema_type(or_null(Type::Integer))
            .minimum(Some(min))
            .maximum(Some(86_400))
    };
    let full = ObjectBuilder::new()
        .property("cmd", cmd())
        .required("cmd")
        .property(
            "interval_sec",
            seconds(1).description(Some("Seconds between two checks; 2 where absent.")),
        )
        .property(
            "timeout_sec",
            seconds(1).description(Some("Seconds that one check may take; 10 where absent.")),
        )
        .property(
            "start_period_sec",
            seconds(0).description(Some(
                "Seconds from the start in which a failed check does not count; 0 where absent.",
            )),
        )
        .property(
            "retries",
            seconds(0).description(Some(
                "Failed checks in a row that are put up with, beyond the first; 15 where absent.",
            )),
        )
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    OneOfBuilder::new()
        .item(cmd())
        .item(full)
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(
            "When the result counts as healthy: a shell line that exits with 0, alone or with how \
             often it is tried. With one, the template is a snapshot with memory; without, it is a \
             disk that boots.",
        ))
        .into()
}

//! Programs to copy from. Each is one file beside this one: `cargo run --example quickstart`.

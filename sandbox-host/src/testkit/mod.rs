//! Tests that other crates and test targets run too.

pub mod guest_contract;

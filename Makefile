# Everything a person needs to know of building this project. `make` alone lists it.

SHELL := /bin/bash
# A fresh Rust toolchain is not in every shell's PATH yet.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# How long `make fuzz` stays with each target.
FUZZ_SEC ?= 60
# How many seeds `make simulate` runs.
SEEDS ?= 100000

.PHONY: help demo test check bench simulate fuzz setup-run setup-test

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: setup-run ## from a bare machine to code running in a VM
	@SANDBOX_DATA=$(CURDIR)/target/demo cargo run --package sandbox-examples --example quickstart

test: setup-test ## every test, real VMs included
	@scripts/test.sh

check: setup-test ## formatting, lints and documentation, as CI has them
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	@# What is built alone must be whole alone: the guest agent, and the SDK without its features.
	cargo clippy --package sandbox-host --no-default-features --features guest-agent -- -D warnings
	cargo clippy --package sandbox-sdk -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --all-features --no-deps

bench: setup-run ## what creating and using sandboxes costs here, in one table
	cargo bench --package sandbox-examples

simulate: ## SEEDS lives of the platform (100000), each from one seed, on all processors
	cargo run --release --package sandbox-core --features simulation --example simulate -- $(SEEDS)

fuzz: setup-test ## each fuzz target for FUZZ_SEC seconds (60)
	@scripts/fuzz.sh $(FUZZ_SEC)

setup-run:
	@scripts/setup.sh run

setup-test:
	@scripts/setup.sh test

# `make help` lists the targets. Everything is done by cargo and scripts/; this file only names it.

export CARGO_TERM_COLOR ?= auto

.DEFAULT_GOAL := help
.PHONY: help run test lint bench setup clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: ## build and show Scoria at work on this machine; ARGS=--once ends by itself
	@scripts/setup run
	@scripts/demo $(ARGS)

test: setup ## install what is missing, then all tests: unit, conformance, Python peers, whole processes, NFS in user-mode Linux
	@scripts/test $(ARGS)

lint: ## formatting, clippy and documentation without warnings, dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features
	scripts/check-dependencies

bench: ## Scoria beside the real cinder-volume (four minutes; ARGS="--save FILE", "--quick"), locks beside tooz (nine; LOCKS_ARGS likewise); see docs/benchmarks.md
	@scripts/setup test
	cargo build --release -p scoria-service
	cargo bench -p scoria-tests --bench beside_cinder -- $(ARGS)
	cargo bench -p scoria-tests --bench locks_beside_tooz -- $(LOCKS_ARGS)
	cargo bench -p scoria-coordination --bench locks

setup: ## install what building, running and testing needs; fast when it is all there
	@scripts/setup test

clean: ## remove what was built (not what setup installed)
	cargo clean

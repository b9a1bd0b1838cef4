# One word for each thing that is done often. `just --list` shows them.

# What the pipeline runs, all of it
ci:
    .ci/run

# Every promise: the tests that need cargo and a C compiler alone
test:
    cargo test --workspace --locked

# The demonstration, told to its end
demo:
    cargo run --release --locked --bin two-states -- --once

# Agreement with programs that are not ours: buf, OpenSSL, Python's grpcio, grpc-go, HTTP clients, WebDAV, Flight, litewitness (installs what it needs under tests/interop/.work)
interop:
    tests/interop/run.sh

# Formatting and lints, warnings denied
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Format every source file
fmt:
    cargo fmt --all

# Forbidden crates, licences and sources (needs cargo-deny)
deny:
    cargo deny check bans licenses sources

# kill -9 under load, 200 rounds instead of the tests' 20
crash:
    TRAVE_CRASH_ROUNDS=200 cargo test --release --locked --workspace --test crash

# CPU per exchange, messages per signature, records per fdatasync, with 64 callers: of the program as it is installed
smoke:
    cargo run --profile dist --locked -p trave-tests --bin smoke

# A million exchanges: bytes on the disk of each side, timestamps, the time of a checkpoint and of a proof
weigh:
    cargo run --profile dist --locked -p trave-tests --bin smoke -- --exchanges 1000000

# 5 GiB down and up through both security servers, in bounded memory, next to two hops of nginx
bulk:
    cargo build --release --locked --bin two-states
    BULK_ROUNDS=3 tests/interop/bulk/run.sh target/release/two-states tests/interop/.work 5

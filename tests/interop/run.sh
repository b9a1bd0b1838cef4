#!/usr/bin/env bash
# Programs that are not ours agree: buf (schema), Python's grpcio and grpc-go (clients and registers), HTTP clients, a
# WebDAV server and Arrow Flight (rest/), nginx (bulk/), Go's note and tlog (witness/), OpenSSL (what a proof holds), EU DSS (dss/), s3rver (archive/). Installs what it needs under tests/interop/.work;
# wants cargo, Python 3, Node.js, Go, Java, Maven, curl, unzip, OpenSSL and ssh-agent on the machine.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
root=$(cd ../.. && pwd)
work=$here/.work
mkdir -p "$work"
failed=0

BUF=1.75.0

say() { printf '\n-- interop: %s\n' "$*"; }
ok() { printf 'ok   %s\n' "$*"; }
fail() {
    printf 'FAIL %s\n' "$*"
    failed=$((failed + 1))
}
# check WHAT COMMAND…: the command succeeds; what it printed is shown if not.
check() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then ok "$what"; else fail "$what" && printf '%s\n' "$output" | tail -20; fi
}
need() {
    command -v "$1" >/dev/null || {
        printf 'tests/interop needs %s on this machine\n' "$1" >&2
        exit 2
    }
}

# What was started here is ended here, by its process id.
started=()
finish() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
}
trap finish EXIT

# await FILE PID: waits for a file that a process writes when it serves.
await() {
    for _ in $(seq 600); do
        [ -s "$1" ] && return 0
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

need cargo && need python3 && need npm && need go && need curl && need openssl && need ssh-agent && need java && need mvn && need unzip

say "buf $BUF: the schema keeps buf's STANDARD rules"
if [ "$("$work/buf/node_modules/.bin/buf" --version 2>/dev/null || true)" != "$BUF" ]; then
    mkdir -p "$work/buf"
    npm install --silent --no-audit --no-fund --prefix "$work/buf" "@bufbuild/buf@$BUF" >/dev/null
fi
check "buf lint proto/schema" "$work/buf/node_modules/.bin/buf" lint "$root/proto/schema"

if [ -x openssl/run.sh ]; then
    say "OpenSSL agrees with the trust services ($(openssl version))"
    openssl/run.sh || fail "openssl/run.sh"
fi

say "grpcio: a client and a register that nobody here wrote, through both security servers"
if ! cmp -s grpcio/requirements.txt "$work/venv/installed"; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r grpcio/requirements.txt
    cp grpcio/requirements.txt "$work/venv/installed"
fi
rm -rf "$work/stubs" "$work/instance" "$work/address" "$work/exchange"
mkdir -p "$work/stubs"
"$work/venv/bin/python" -m grpc_tools.protoc -I grpcio --python_out="$work/stubs" --grpc_python_out="$work/stubs" echo.proto
export PYTHONPATH=$work/stubs PYTHONDONTWRITEBYTECODE=1

"$work/venv/bin/python" grpcio/server.py "$work/address" &
started+=($!)
await "$work/address" $! || { fail "the grpcio server does not start" && exit 1; }
register=$(cat "$work/address")

(cd "$root" && cargo build --release --locked --quiet --bin two-states --bin trave-verify)
two_states=${CARGO_TARGET_DIR:-$root/target}/release/two-states
verify=${CARGO_TARGET_DIR:-$root/target}/release/trave-verify
"$two_states" --dir "$work/instance" --register "$register" >"$work/instance.out" 2>&1 &
started+=($!)
if ! await "$work/instance/serving" $!; then
    tail -40 "$work/instance.out"
    fail "an instance with this register does not start"
    exit 1
fi

"$work/venv/bin/python" grpcio/compare.py "$register" "$work/instance/endpoints.json" "$work/exchange" || fail "grpcio"

say "grpc-go: the gRPC project's interop cases, directly and through both security servers"
grpc-go/run.sh "$two_states" "$work" || fail "grpc-go"

say "curl, requests, httpx, fetch, WebDAV and Flight: directly and through both security servers"
rest/run.sh "$two_states" "$work" || fail "rest"

say "bodies of many GiB through both security servers, next to a plain proxy of two hops (BULK_GIB=5 for the long run)"
bulk/run.sh "$two_states" "$work" "${BULK_GIB:-1}" || fail "bulk"

say "OpenSSL checks what a proof of that exchange holds"
./proof.sh "$two_states" "$verify" "$work/instance" "$(cat "$work/exchange")" || fail "the proof in OpenSSL's eyes"

say "witnesses: Go's note and tlog packages, torchwood and litewitness agree with our checkpoints and cosignatures"
witness/run.sh "$two_states" "$verify" "$work/instance" "$(cat "$work/exchange")" "$work" || fail "witness"

say "tiles: Go's note and tlog packages read a security server's log as an auditor"
witness/tiles.sh "$two_states" "$verify" "$work" || fail "tiles"

say "EU DSS, OpenSSL and zip programs agree with the containers of proofs"
dss/run.sh "$two_states" "$verify" "$work" || fail "dss"

say "s3rver: the archive in an object storage"
archive/run.sh "$work" || fail "archive"

say "$failed failed"
[ "$failed" -eq 0 ]

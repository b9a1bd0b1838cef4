#!/usr/bin/env bash
# The gRPC project's own interop cases, with grpc-go's interop client and server: each directly, and through two security
# servers. What the cases demand: github.com/grpc/grpc, doc/interop-test-descriptions.md. The versions stand in go.mod.
#
# run.sh TWO_STATES WORK_DIR: ends with failure where a case fails on either way, or ends otherwise than directly.
set -euo pipefail
two_states=$1 work=$2/grpc-go
here=$(cd "$(dirname "$0")" && pwd)

CASES="empty_unary large_unary client_streaming server_streaming ping_pong empty_stream custom_metadata
status_code_and_message special_status_message unimplemented_method unimplemented_service cancel_after_begin
cancel_after_first_response timeout_on_sleeping_server"
# Seconds for one case; the slowest takes less than one.
PATIENCE=30

started=()
finish() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
}
trap finish EXIT

rm -rf "$work"
mkdir -p "$work"
for program in client server; do
    (cd "$here" && GOFLAGS=-mod=readonly go build -o "$work/$program" "google.golang.org/grpc/interop/$program")
done

register=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/server" --port "$register" >"$work/server.out" 2>&1 &
started+=($!)
"$two_states" --dir "$work/instance" --register "127.0.0.1:$register" >"$work/instance.out" 2>&1 &
instance=$!
started+=("$instance")
for _ in $(seq 600); do
    [ -s "$work/instance/serving" ] && break
    kill -0 "$instance" 2>/dev/null || break
    sleep 0.1
done
if ! [ -s "$work/instance/serving" ]; then
    tail -40 "$work/instance.out"
    echo "FAIL grpc-go: an instance with the interop server as its register does not start"
    exit 1
fi
# The agency's door, and what a call must carry there: as the client's flag takes it.
read -r door metadata < <(python3 - "$work/instance/endpoints.json" <<'PYTHON'
import json, sys
call = json.load(open(sys.argv[1], encoding="utf-8"))["call"]
print(call["address"].rsplit(":", 1)[1], ";".join(f"{name}:{value}" for name, value in call["metadata"].items()))
PYTHON
)

# case NAME PORT OUTPUT [FLAG…]: runs a case; prints how it ended and how long it took.
case_on() {
    local name=$1 port=$2 output=$3 began code=0
    shift 3
    began=$(date +%s%3N)
    GRPC_GO_LOG_SEVERITY_LEVEL=info timeout "$PATIENCE" "$work/client" --server_host 127.0.0.1 --server_port "$port" \
        --test_case "$name" "$@" >"$output" 2>&1 || code=$?
    # The client says "done" only when all that the case demands was seen; anything else is fatal to it.
    if [ "$code" -eq 0 ] && grep -q '[Dd]one$' "$output"; then
        echo "passed $(($(date +%s%3N) - began))"
    else
        echo "failed($code) $(($(date +%s%3N) - began))"
    fi
}

failed=0
printf '     %-30s %-22s %s\n' "$(cd "$here" && go list -m -f 'grpc-go {{.Version}}' google.golang.org/grpc)" directly "through both servers"
for name in $CASES; do
    read -r here_ended here_ms < <(case_on "$name" "$register" "$work/$name.direct")
    read -r there_ended there_ms < <(case_on "$name" "$door" "$work/$name.through" --additional_metadata "$metadata")
    verdict=ok
    [ "$here_ended $there_ended" = "passed passed" ] || verdict=FAIL
    printf '%-4s %-30s %-10s %6s ms   %-10s %6s ms\n' "$verdict" "$name" "$here_ended" "$here_ms" "$there_ended" "$there_ms"
    if [ "$verdict" = FAIL ]; then
        failed=$((failed + 1))
        grep -v ' INFO: ' "$work/$name.direct" "$work/$name.through" | tail -6 || true
    fi
done
# They went through: both logs tell of them. A call that its caller gave up within a millisecond may have got nowhere.
for server in luebeck gewerberegister; do
    "$two_states" process gateway log list --config "$work/instance/$server/gateway.toml" --reason interop |
        grep '/grpc.testing' | cut -f 2 | sort >"$work/$server.exchanges"
done
both=$(comm -12 "$work/luebeck.exchanges" "$work/gewerberegister.exchanges" | wc -l)
register_alone=$(comm -13 "$work/luebeck.exchanges" "$work/gewerberegister.exchanges" | wc -l)
if [ "$both" -ge $(($(wc -w <<<"$CASES") - 2)) ] && [ "$register_alone" -eq 0 ]; then
    echo "ok   both logs tell of the same $both exchanges"
else
    echo "FAIL both logs tell of $both exchanges, and the register's of $register_alone more"
    failed=$((failed + 1))
fi
printf -- '-- grpc-go: %s failed\n' "$failed"
[ "$failed" -eq 0 ]

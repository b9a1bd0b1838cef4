#!/usr/bin/env bash
# HTTP and Flight programs that nobody here wrote, against servers that nobody here wrote: each directly, and through two
# security servers. curl, Python's requests and httpx, Node's fetch and a WebDAV server (wsgidav) through the REST door;
# pyarrow's Flight client and server through the gRPC door. The versions stand in requirements.txt.
#
# run.sh TWO_STATES WORK_DIR: ends with failure where a program sees something else than directly.
set -euo pipefail
two_states=$1 work=$2/rest
here=$(cd "$(dirname "$0")" && pwd)

started=()
finish() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
}
trap finish EXIT

mkdir -p "$work"
if ! cmp -s "$here/requirements.txt" "$work/installed"; then
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$work/installed"
fi
python=$work/venv/bin/python
export PYTHONDONTWRITEBYTECODE=1

rm -rf "$work/instance" "$work/files" "$work/flight.address"
for way in direct behind; do
    mkdir -p "$work/files/$way"
    printf 'Tischlerei Wellenschlag, Wismar\n' >"$work/files/$way/akte.txt"
    head -c 33554432 /dev/zero | tr '\0' 'x' >"$work/files/$way/gross.bin"
done

port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/wsgidav" --host 127.0.0.1 --port "$port" --root "$work/files" --auth anonymous --no-config \
    >"$work/wsgidav.out" 2>&1 &
started+=($!)
"$python" "$here/flight_server.py" "$work/flight.address" >"$work/flight.out" 2>&1 &
started+=($!)
for _ in $(seq 300); do
    [ -s "$work/flight.address" ] && curl -s -o /dev/null "http://127.0.0.1:$port/" && break
    sleep 0.1
done

"$two_states" --dir "$work/instance" --register "$(cat "$work/flight.address")" \
    --rest-register "http://127.0.0.1:$port" >"$work/instance.out" 2>&1 &
instance=$!
started+=("$instance")
for _ in $(seq 600); do
    [ -s "$work/instance/serving" ] && break
    kill -0 "$instance" 2>/dev/null || break
    sleep 0.1
done
if ! [ -s "$work/instance/serving" ]; then
    tail -40 "$work/instance.out"
    echo "FAIL rest: an instance with these registers does not start"
    exit 1
fi

failed=0
direct=http://127.0.0.1:$port/direct
"$python" "$here/compare.py" "$direct" "$work/instance/endpoints.json" || failed=$((failed + 1))
node "$here/fetch.mjs" "$direct" "$work/instance/endpoints.json" || failed=$((failed + 1))
"$python" "$here/flight.py" "$(cat "$work/flight.address")" "$work/instance/endpoints.json" || failed=$((failed + 1))
"$here/curl.sh" "$direct" "$work/instance/endpoints.json" "$work" || failed=$((failed + 1))
printf -- '-- rest: %s failed\n' "$failed"
[ "$failed" -eq 0 ]

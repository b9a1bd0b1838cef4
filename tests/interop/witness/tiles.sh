#!/usr/bin/env bash
# Go's note and tlog packages read a security server's log by its tiles (C2SP tlog-tiles), as an auditor whose key and
# certificate OpenSSL made: the checkpoint with its cosignatures, every record's place under it, and that it continues what it
# was. Over HTTP/2 and HTTP/1.1.
#
# tiles.sh TWO_STATES TRAVE_VERIFY WORK_DIR: starts an instance of its own; ends with failure where any disagrees.
set -euo pipefail
two_states=$1 verify=$2 work=$3/tiles
here=$(cd "$(dirname "$0")" && pwd)

started=()
finish() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
}
trap finish EXIT
fail() {
    printf 'FAIL tiles: %s\n' "$*"
    exit 1
}
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

rm -rf "$work"
mkdir -p "$work"
(cd "$here" && GOFLAGS=-mod=readonly go build -o "$work/go" .)
instance=$work/i
serve() {
    rm -f "$instance/serving"
    "$two_states" --dir "$instance" >"$work/instance.out" 2>&1 &
    started=($!)
    for _ in $(seq 3000); do
        [ -s "$instance/serving" ] && return
        kill -0 "${started[0]}" 2>/dev/null || break
        sleep 0.1
    done
    tail -40 "$work/instance.out"
    fail "no instance starts"
}
serve
kill "${started[0]}" && wait "${started[0]}" || true

# The auditor's own key and certificate, and the door that the operator opens for it.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/auditor.key" -out "$work/auditor.pem" \
    -subj "/CN=Rechnungshof" -addext "subjectAltName=DNS:rechnungshof.example" -days 30 2>/dev/null
door=127.0.0.1:$(port)
cat >>"$instance/luebeck/gateway.toml" <<TOML
[auditors]
listen = "$door"
TOML
serve
# One administrator applies, another of the other state approves, and the server learns of it.
registry() { "$two_states" process registry admin --config "$instance/nord/administrators/$1/admin.toml" "${@:2}"; }
act=$(registry anna-albrecht auditor add Rechnungshof --certificate "$work/auditor.pem" --class NORD/SH)
registry bernd-brandt approve "$act" --yes >/dev/null
# It is let in when the configuration that names it is in use: asked for every 2 s here.
let_in() {
    curl --silent --fail --max-time 5 --insecure --cert "$work/auditor.pem" --key "$work/auditor.key" --output /dev/null \
        "https://$door/checkpoint"
}
for _ in $(seq 60); do let_in && break || sleep 0.5; done
let_in || fail "the auditor is not let in within 30 s of its approval"

gateway() { (cd "$instance/luebeck" && "$two_states" process gateway "$@" --config gateway.toml); }
# All of it is read: cut off by head, the program would fail at its next line.
listed=$(gateway log list --outcome answered --limit 1 --reason interop)
exchange=$(cut -f2 <<<"${listed%%$'\n'*}")
gateway proof "$exchange" --out "$work/exchange.proof" --reason interop >/dev/null
"$verify" "$work/exchange.proof" --anchor "$instance/nord/registry/anchor" --extract "$work/extracted" >/dev/null
shown=$("$two_states" process registry admin --config "$instance/nord/administrators/anna-albrecht/admin.toml" configuration show)
log_key=$(sed -n 's/^ *log verifier key //p' <<<"$shown" | grep '/SH/luebeck/')
witness_keys=$(sed -n 's/^witness \(witness\.[^ ]*\) .*/\1/p' <<<"$shown")
# A later checkpoint than the proof's: what was exported is a record too.
gateway proof "$exchange" --out "$work/again.proof" --reason interop >/dev/null
# shellcheck disable=SC2086
if output=$("$work/go" tiles "https://$door" "$work/auditor.pem" "$work/auditor.key" \
    "$instance/luebeck/data/certificates/authentication.pem" "$work/extracted" "$log_key" $witness_keys 2>&1); then
    printf 'ok   tiles: %s\n' "$output"
else
    fail "$output"
fi

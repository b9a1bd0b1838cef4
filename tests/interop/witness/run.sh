#!/usr/bin/env bash
# Witnesses that nobody here wrote, and logs that nobody here wrote: Go's note and tlog packages and torchwood read our
# checkpoints and cosignatures and submit to our witness; litewitness cosigns our security server's checkpoints, beside our
# own witnesses. The versions stand in go.mod. Wants ssh-agent, in which litewitness keeps its key.
#
# run.sh TWO_STATES TRAVE_VERIFY INSTANCE_DIR EXCHANGE_ID WORK_DIR: the instance runs; ends with failure where any disagrees.
set -euo pipefail
two_states=$1 verify=$2 instance=$3 exchange=$4 work=$5/witness
here=$(cd "$(dirname "$0")" && pwd)
failed=0

step() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        printf 'ok   witness: %s\n' "$what"
    else
        printf 'FAIL witness: %s\n%s\n' "$what" "$output"
        failed=$((failed + 1))
    fi
}
started=()
finish() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
}
trap finish EXIT
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
registry() { "$two_states" process registry "$@"; }
# until SECONDS COMMAND…
until_holds() {
    local left=$(($1 * 5))
    shift
    while ! "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.2
    done
}
serves() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); }

rm -rf "$work"
mkdir -p "$work"
(cd "$here" && GOFLAGS=-mod=readonly go build -o "$work/go" . &&
    GOFLAGS=-mod=readonly go build -o "$work/litewitness" filippo.io/torchwood/cmd/litewitness)

# Our witness, and a log of Go's.
log_key=$("$work/go" key "$work/log.key")
ours=$(port)
# All of it is read: cut off by head, the program would fail at its next line.
told=$(registry init-witness "$work/ours" --name witness.trave.example/w1 --listen "127.0.0.1:$ours" 2>"$work/init.out") ||
    { cat "$work/init.out" && exit 1; }
witness_key=${told%%$'\n'*}
printf '[[log]]\nkey = "%s"\n' "$log_key" >>"$work/ours/witness.toml"
registry witness --config "$work/ours/witness.toml" --log warn >"$work/ours.out" 2>&1 &
started+=($!)
until_holds 30 serves "$ours"
step "a log in Go submits to our witness: every case of tlog-witness" \
    "$work/go" submit "http://127.0.0.1:$ours" "$work/log.key" "$witness_key"

# Litewitness cosigns what our security server in Luebeck submits.
eval "$(ssh-agent -a "$work/agent" | head -2)" >/dev/null
started+=("$SSH_AGENT_PID")
ssh-keygen -q -t ed25519 -N '' -f "$work/key" -C litewitness
ssh-add -q "$work/key" 2>/dev/null
lite=$(port)
origin_and_key=$(registry admin --config "$instance/nord/administrators/anna-albrecht/admin.toml" configuration show |
    sed -n 's/^ *log verifier key //p' | grep '/SH/luebeck/')
python3 - "$work/litewitness.db" "$origin_and_key" <<'PYTHON'
import base64, hashlib, sqlite3, sys
# As witnessctl add-log and add-key write it.
db, key = sqlite3.connect(sys.argv[1]), sys.argv[2]
origin = key.split("+")[0]
db.execute("CREATE TABLE log (origin TEXT PRIMARY KEY, tree_size INTEGER NOT NULL, tree_hash TEXT NOT NULL)")
db.execute("CREATE TABLE key (origin TEXT NOT NULL, key TEXT NOT NULL, FOREIGN KEY(origin) REFERENCES log(origin))")
db.execute("INSERT INTO log VALUES (?, 0, ?)", (origin, base64.b64encode(hashlib.sha256(b"").digest()).decode()))
db.execute("INSERT INTO key VALUES (?, ?)", (origin, key))
db.commit()
PYTHON
"$work/litewitness" -db "$work/litewitness.db" -name litewitness.example/w1 -ssh-agent "$work/agent" \
    -key "$(ssh-keygen -lf "$work/key.pub" | cut -d' ' -f2)" -listen "127.0.0.1:$lite" >"$work/litewitness.out" 2>&1 &
started+=($!)
until_holds 30 serves "$lite"
lite_key=$(sed -n 's/.*vkey="\{0,1\}\([^" ]*\).*/\1/p;T;q' "$work/litewitness.out")
anna=$instance/nord/administrators/anna-albrecht/admin.toml
bernd=$instance/nord/administrators/bernd-brandt/admin.toml
act=$(registry admin --config "$anna" witness add "$lite_key" --class MV --url "http://127.0.0.1:$lite" 2>"$work/applied") ||
    cat "$work/applied"
step "two administrators register litewitness" registry admin --config "$bernd" approve "$act" --yes
gateway() { (cd "$instance/luebeck" && "$two_states" process gateway "$@" --config gateway.toml); }
# Each proof begins with a checkpoint, which goes to the witnesses.
cosigned() {
    rm -f "$work/some.proof"
    gateway proof "$exchange" --out "$work/some.proof" --reason interop && gateway status | grep -q '^witnessed.*litewitness'
}
step "litewitness cosigns our security server's checkpoint" until_holds 90 cosigned

# What stands in a proof, read by others. The exchange is older than litewitness, so that its line is not in this proof.
rm -f "$work/exchange.proof"
gateway proof "$exchange" --out "$work/exchange.proof" --reason interop >/dev/null
step "trave-verify: it holds, and says who witnessed it" sh -c \
    "'$verify' '$work/exchange.proof' --anchor '$instance/nord/registry/anchor' --extract '$work/extracted' | grep 'witness.mv.example/w1'"
keys=$(registry admin --config "$anna" configuration show | sed -n 's/^witness \(witness\.[^ ]*\) .*/\1/p')
# shellcheck disable=SC2086
step "Go reads checkpoint and cosignatures of the proof" \
    "$work/go" read "$work/extracted/checkpoint/cosigned.txt" "$origin_and_key" $keys
step "OpenSSL: the cosignatures hold" sh -c "cd '$work/extracted' && sh check.sh >../check.out && grep -i witness ../check.out"
vectors=$here/../../../proto/vectors/checkpoint
cat "$vectors/checkpoint.note" "$vectors/cosignature.line" >"$work/vector.txt"
step "our own vectors, read by Go" "$work/go" read "$work/vector.txt" "$(cat "$vectors/log.vkey")" "$(cat "$vectors/witness.vkey")"
[ "$failed" -eq 0 ]

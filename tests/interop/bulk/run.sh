#!/usr/bin/env bash
# Bodies of many GiB through two security servers: the same bytes, in bounded memory, next to a plain proxy of two hops
# (nginx over mutual TLS) in the same run, in turn.
#
# run.sh TWO_STATES WORK_DIR [GIB]: ends with failure where bytes differ or a security server grows by 64 MiB. BULK_ROUNDS:
# how often each way is gone, for medians.
set -euo pipefail
two_states=$1 work=$2/bulk gib=${3:-1}
here=$(cd "$(dirname "$0")" && pwd)
GROWTH_MIB=64
ROUNDS=${BULK_ROUNDS:-1}

started=()
finish() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -f "$work/file"
}
trap finish EXIT

if ! command -v nginx >/dev/null; then
    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light) >/dev/null 2>&1 ||
        echo "SKIPPED bulk: nginx is not here and cannot be installed: no plain proxy goes beside"
fi
mkdir -p "$work"
rm -rf "$work/instance" "$work/address"
# Bytes that compress to nothing less and are the same every time.
head -c "$((gib << 30))" /dev/zero | openssl enc -aes-128-ctr -nosalt -K "$(printf '%032d' 1)" -iv "$(printf '%032d' 2)" >"$work/file"
expected=$(sha256sum "$work/file" | cut -d ' ' -f 1)

python3 "$here/server.py" "$work/address" "$work/file" &
started+=($!)
for _ in $(seq 100); do [ -s "$work/address" ] && break || sleep 0.1; done
register=$(cat "$work/address")
read -r front hop < <(python3 -c 'import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))')
if command -v nginx >/dev/null; then
    "$here/nginx.sh" "$work/nginx" "$front" "$hop" "$register" &
    started+=($!)
fi
# An instance with this register; started once more, what its directory says counts.
start() {
    rm -f "$work/instance/serving"
    "$two_states" --dir "$work/instance" --rest-register "http://$register" >"$work/instance.out" 2>&1 &
    instance=$!
    started+=("$instance")
    for _ in $(seq 600); do
        [ -s "$work/instance/serving" ] && return
        kill -0 "$instance" 2>/dev/null || break
        sleep 0.1
    done
    tail -40 "$work/instance.out"
    echo "FAIL bulk: an instance with this register does not start"
    exit 1
}
start
kill "$instance" && wait "$instance" || true
# What is measured is the way, not how fast a disk takes many GiB of contents.
sed -i 's/^keep_content = "[a-z]*"/keep_content = "none"/' "$work/instance/luebeck/gateway.toml" "$work/instance/gewerberegister/gateway.toml"
start
read -r base headers < <(python3 - "$work/instance/endpoints.json" "$work/headers" <<'PYTHON'
import json, sys
rest = json.load(open(sys.argv[1], encoding="utf-8"))["rest"]
with open(sys.argv[2], "w", encoding="utf-8") as file:
    file.writelines(f"{name}: {value}\n" for name, value in rest["headers"].items())
print(rest["base"], sys.argv[2])
PYTHON
)
# The two security servers, and what each holds in memory now, in MiB.
servers=$(for pid in $(pgrep -P "$instance" -f 'process gateway'); do
    case $(readlink "/proc/$pid/cwd") in */luebeck | */gewerberegister) echo "$pid" ;; esac
done)
[ "$(wc -w <<<"$servers")" -eq 2 ] || { echo "FAIL bulk: the security servers' processes are not found" && exit 1; }
resident() { awk '/^VmRSS/ { printf "%d ", $2 / 1024 } END { print "" }' $(printf '/proc/%s/status ' $servers); }
# The most that each held, sampled until it is ended.
watch_resident() {
    local most=(0 0) now at
    trap 'echo "${most[*]}" >"$work/most"; exit 0' TERM
    while :; do
        read -ra now < <(resident)
        for at in 0 1; do [ "${now[$at]}" -le "${most[$at]}" ] || most[at]=${now[$at]}; done
        sleep 0.2
    done
}

failed=0
check() { if [ "$2" = "$expected" ]; then :; else echo "FAIL bulk: $1: other bytes ($2)" && failed=$((failed + 1)); fi; }
# transfer WAY URL FLAG…: one download and one upload; prints their MiB/s.
transfer() {
    local way=$1 url=$2 flags=("${@:3}") down up
    down=$(curl -sS --max-time 900 -w '%{speed_download}\n' -o >(sha256sum | cut -d ' ' -f 1 >"$work/down") "${flags[@]}" "$url/file")
    for _ in $(seq 100); do [ -s "$work/down" ] && break || sleep 0.1; done
    check "$way, download" "$(cat "$work/down")"
    rm -f "$work/down"
    up=$(curl -sS --max-time 900 -w '\n%{speed_upload}\n' -T "$work/file" "${flags[@]}" "$url/file")
    check "$way, upload" "$(head -1 <<<"$up")"
    printf '%s %d %d\n' "$way" "$((down >> 20))" "$(($(tail -1 <<<"$up") >> 20))" | tee -a "$work/speeds"
}

rm -f "$work/speeds"
before=$(resident)
watch_resident &
watcher=$!
for _ in $(seq "$ROUNDS"); do
    if command -v nginx >/dev/null; then transfer plain "http://127.0.0.1:$front"; fi
    transfer trave "$base" -H "@$headers"
done
kill -TERM "$watcher"
wait "$watcher" || true
read -ra most <"$work/most"
at=0
for was in $before; do
    grown=$((most[at] - was))
    [ "$grown" -lt "$GROWTH_MIB" ] && word=ok || { word=FAIL && failed=$((failed + 1)); }
    printf '%-4s bulk: security server %d: %d MiB resident before, at most %d: %d MiB more\n' "$word" "$((at + 1))" "$was" "${most[at]}" "$grown"
    at=$((at + 1))
done
python3 - "$work/speeds" "$gib" <<'PYTHON'
import statistics, sys
rows = [line.split() for line in open(sys.argv[1], encoding="ascii")]
for at, what in (1, "download"), (2, "upload"):
    speeds = {way: [int(row[at]) for row in rows if row[0] == way] for way in ("plain", "trave")}
    trave = statistics.median(speeds["trave"])
    told = f"bulk: {what} of {sys.argv[2]} GiB: signed and logged {trave:.0f} MiB/s"
    if speeds["plain"]:
        plain = statistics.median(speeds["plain"])
        told += f", plain two hops {plain:.0f} MiB/s: {trave / plain:.2f}"
    print(told)
PYTHON
printf -- '-- bulk: %s failed\n' "$failed"
[ "$failed" -eq 0 ]

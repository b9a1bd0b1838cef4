#!/usr/bin/env bash
# EU DSS, the European Commission's validator, passes the containers of both security servers offline, with the instance's
# authorities as trust source, and passes none of which a byte was changed; OpenSSL checks seal and timestamp by itself, and
# zip programs that nobody here wrote unpack it. Wants Java, Maven, OpenSSL, unzip and Python 3; the libraries come from Maven Central.
#
# run.sh TWO_STATES TRAVE_VERIFY WORK_DIR: starts an instance of its own; ends with failure where any disagrees.
set -euo pipefail
two_states=$1 verify=$2 work=$3/dss
here=$(cd "$(dirname "$0")" && pwd)
failed=0

for program in java javac mvn openssl unzip python3; do
    command -v "$program" >/dev/null || {
        echo "FAIL dss: needs $program on this machine"
        exit 1
    }
done
step() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        printf 'ok   dss: %s\n' "$what"
    else
        printf 'FAIL dss: %s\n%s\n' "$what" "$output"
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

mkdir -p "$work"
if ! cat "$here/pom.xml" "$here"/src/main/java/eu/trave/interop/*.java | cmp -s - "$work/built"; then
    rm -rf "$work/libraries" "$work/classes"
    mvn --quiet --batch-mode -f "$here/pom.xml" "-Dmaven.repo.local=$work/repository" \
        dependency:copy-dependencies "-DoutputDirectory=$work/libraries"
    javac -cp "$work/libraries/*" -d "$work/classes" "$here"/src/main/java/eu/trave/interop/*.java
    cat "$here/pom.xml" "$here"/src/main/java/eu/trave/interop/*.java >"$work/built"
fi

rm -rf "$work/instance"
"$two_states" --dir "$work/instance" >"$work/instance.out" 2>&1 &
started+=($!)
for _ in $(seq 3000); do
    [ -s "$work/instance/serving" ] && break
    kill -0 "${started[0]}" 2>/dev/null || break
    sleep 0.1
done
[ -s "$work/instance/serving" ] || {
    tail -40 "$work/instance.out"
    echo "FAIL dss: no instance starts"
    exit 1
}

instance=$work/instance
services=$instance/nord/registry/trust-services
openssl x509 -in "$services/authority.pem" -outform DER -out "$work/authority.der"
openssl x509 -in "$services/timestamping.pem" -outform DER -out "$work/timestamping.der"
containers=()
for server in luebeck gewerberegister; do
    gateway() { (cd "$instance/$server" && "$two_states" process gateway "$@" --config gateway.toml); }
    # All of it is read: cut off by head, the program would fail at its next line.
    listed=$(gateway log list --outcome answered --limit 1 --reason interop 2>/dev/null)
    exchange=$(cut -f2 <<<"${listed%%$'\n'*}")
    container=$work/$server.asice
    rm -rf "$container" "$work/$server"
    step "$server exports a container" gateway proof "$exchange" --asice --out "$container" --reason interop
    containers+=("$container")
    step "trave-verify: it holds" "$verify" "$container" \
        --anchor "$instance/nord/registry/anchor" --extract "$work/$server"
    pieces=$work/$server/container
    step "OpenSSL: the seal is over the list of files" openssl cms -verify -inform DER -in "$pieces/seal.p7s" \
        -content "$pieces/manifest.xml" -binary -purpose any -CAfile "$services/authority.pem" -out /dev/null
    [ -s "$pieces/manifest.xml" ] || continue
    sed 's/README/README-/' "$pieces/manifest.xml" >"$pieces/other.xml"
    step "OpenSSL: and over no other list" sh -c "! openssl cms -verify -inform DER -in '$pieces/seal.p7s' \
        -content '$pieces/other.xml' -binary -purpose any -CAfile '$services/authority.pem' -out /dev/null"
    step "OpenSSL: the timestamp is over the signature" openssl ts -verify -token_in -in "$pieces/timestamp.der" \
        -data "$pieces/signature.bin" -CAfile "$services/authority.pem"
    step "unzip finds no fault in it" unzip -qt "$container"
    step "Python reads it, the media type first" python3 - "$container" <<'PYTHON'
import sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
first = archive.infolist()[0]
assert (first.filename, first.compress_type, first.header_offset) == ("mimetype", zipfile.ZIP_STORED, 0), first
assert archive.read("mimetype") == b"application/vnd.etsi.asic-e+zip" and archive.testzip() is None
PYTHON
done

java -cp "$work/libraries/*:$work/classes" eu.trave.interop.Validate \
    "$work/authority.der" "$work/timestamping.der" "${containers[@]}" || failed=$((failed + 1))
[ "$failed" -eq 0 ]

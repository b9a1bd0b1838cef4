#!/usr/bin/env bash
# EU DSS, the European Commission's validator, passes the containers of both security servers offline, with the instance's
# authorities as trust source, and passes none of which a byte was changed; years later it passes those whose archive timestamps
# were renewed, and says of the others what it says; OpenSSL checks seal and timestamp by itself, and
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

# Years later. The certification authority alone is trusted; what else counts, the containers must show by themselves.
asked=$work/asked.tsv
: >"$asked"
ask() { # CONTAINER AT_MS TRUSTED EXPECTED WORDS
    printf '%s\t%s\t%s\t%s\t%s\n' "$@" >>"$asked"
}
passed=TOTAL_PASSED
day=86400000
now=$(($(date +%s) * 1000))
for container in "${containers[@]}"; do
    server=$(basename "$container" .asice)
    # As it was before archive timestamps: the last two files are left out, the rest stays byte for byte.
    python3 - "$container" "$work/$server-without.asice" <<'PYTHON'
import sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
with zipfile.ZipFile(sys.argv[2], "w", zipfile.ZIP_STORED) as out:
    for entry in archive.infolist()[:-2]:
        out.writestr(zipfile.ZipInfo(entry.filename), archive.read(entry))
PYTHON
    gateway() { (cd "$instance/$server" && "$two_states" process gateway "$@" --config gateway.toml); }
    rm -f "$work/$server"-renewed*.asice
    step "$server renews the container" gateway proof renew "$container" --out "$work/$server-renewed.asice"
    step "and once more" gateway proof renew "$work/$server-renewed.asice" --out "$work/$server-renewed-twice.asice"
    rm -rf "$work/$server-renewed"
    step "trave-verify: it holds" "$verify" "$work/$server-renewed-twice.asice" \
        --anchor "$instance/nord/registry/anchor" --extract "$work/$server-renewed"
    for number in 1 2 3; do
        list=$work/$server-renewed/container/archive-$number
        step "OpenSSL: archive timestamp $number is over its list" openssl ts -verify -token_in -in "$list.der" \
            -data "$list.xml" -CAfile "$services/authority.pem"
    done
    # The signer's certificate is for two years, the OCSP responder's for one, the timestamping authority's for ten.
    for days in 0 400 800 3600; do
        for file in "$container" "$work/$server-renewed-twice.asice"; do
            ask "$file" $((now + days * day)) "$work/authority.der" $passed "$(basename "$file") in $days days"
        done
    done
    without=$work/$server-without.asice
    ask "$without" "$now" "$work/authority.der" $passed "$server without archive timestamp, now"
    ask "$without" $((now + 400 * day)) "$work/authority.der,$work/timestamping.der" \
        "INDETERMINATE REVOCATION_OUT_OF_BOUNDS_NO_POE" "$server without archive timestamp, in 400 days"
    ask "$without" $((now + 800 * day)) "$work/authority.der,$work/timestamping.der" \
        "INDETERMINATE OUT_OF_BOUNDS_NO_POE" "$server without archive timestamp, in 800 days"
    ask "$container" $((now + 4000 * day)) "$work/authority.der" \
        "INDETERMINATE OUT_OF_BOUNDS_NO_POE" "$server, not renewed, in 4000 days: the timestamping authority ended after ten years"
done

# The fixed examples, which were renewed by later authorities, at the times of theirs.
vectors=$here/../../../proto/vectors
sealed=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["sealed_ms"])' "$vectors/containers.json")
later() { # NAME DAYS EXPECTED WORDS
    ask "$vectors/container/$1.asice" $((sealed + $2 * day + 60000)) "$vectors/container/authority.der" "$3" "$1.asice, $2 days after its seal$4"
}
unproved="INDETERMINATE OUT_OF_BOUNDS_NO_POE"
for days in 0 400 800 3600; do later sealed "$days" $passed ""; done
later sealed 4000 "$unproved" ": not renewed"
for days in 3301 4000 6900; do later renewed "$days" $passed ": renewed after 3300"; done
later renewed 7200 "$unproved" ": not renewed again"
for days in 6601 7200; do later renewed-twice "$days" $passed ": renewed after 3300 and 6600"; done
later earlier 0 $passed ": without archive timestamp"
later earlier 400 "INDETERMINATE REVOCATION_OUT_OF_BOUNDS_NO_POE" ": without archive timestamp"
java -cp "$work/libraries/*:$work/classes" eu.trave.interop.LongTerm <"$asked" || failed=$((failed + 1))
[ "$failed" -eq 0 ]

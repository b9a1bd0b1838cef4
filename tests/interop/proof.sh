#!/usr/bin/env bash
# The proof of an exchange in OpenSSL's eyes: both servers export it, trave-verify accepts it and writes out every byte
# that counts, and OpenSSL alone checks timestamp, certificates, OCSP answers and signatures.
#
# proof.sh TWO_STATES TRAVE_VERIFY INSTANCE_DIR EXCHANGE_ID
set -euo pipefail
two_states=$1 verify=$2 instance=$3 exchange=$4
failed=0

# step WHAT COMMAND…
step() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        printf 'ok   proof: %s\n' "$what"
    else
        printf 'FAIL proof: %s\n%s\n' "$what" "$output"
        failed=$((failed + 1))
    fi
}

for server in luebeck gewerberegister; do
    proof=$instance/$server.proof
    out=$instance/$server.extracted
    rm -rf "$proof" "$out"
    step "$server exports it" "$two_states" process gateway proof "$exchange" \
        --config "$instance/$server/gateway.toml" --out "$proof" --reason "interop"
    step "trave-verify: it holds" "$verify" "$proof" --anchor "$instance/nord/registry/anchor" --extract "$out"
    step "OpenSSL: what it is made of holds" sh -c "cd '$out' && sh check.sh"
done
[ "$failed" -eq 0 ]

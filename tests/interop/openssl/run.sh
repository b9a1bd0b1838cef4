#!/usr/bin/env bash
# OpenSSL agrees: it verifies what trave-certs makes, and trave-proto verifies what OpenSSL makes.
# Needs openssl 3 and curl. Exit 0 if all agree; a line for each agreement.
set -euo pipefail
cd "$(dirname "$0")/../../.."

root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
work=$(mktemp -d)
server=
finish() {
    local code=$?
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; fi
    if [ $code -ne 0 ]; then
        echo "FAILED; what was made lies in $work" >&2
    else
        rm -rf "$work"
    fi
}
trap finish EXIT

# expect WHAT PATTERN COMMAND…: the command succeeds and says so.
expect() {
    local what=$1 pattern=$2 output
    shift 2
    if output=$("$@" 2>&1) && grep -Eq -- "$pattern" <<<"$output"; then
        echo "ok    $what"
    else
        printf 'NOT OK %s\n  command: %s\n  expected: %s\n  said: %s\n' "$what" "$*" "$pattern" "$output" >&2
        exit 1
    fi
}

# refuse WHAT PATTERN COMMAND…: the command fails and says why.
refuse() {
    local what=$1 pattern=$2 output
    shift 2
    if ! output=$("$@" 2>&1) && grep -Eq -- "$pattern" <<<"$output"; then
        echo "ok    $what"
    else
        printf 'NOT OK %s\n  command: %s\n  expected to fail with: %s\n  said: %s\n' "$what" "$*" "$pattern" "$output" >&2
        exit 1
    fi
}

der() { openssl x509 -in "$1" -outform DER -out "${1%.pem}.der"; }

cargo build --quiet --locked -p trave-certs --bin trave-certs --example verify
certs="$target/debug/trave-certs"
verify="$target/debug/examples/verify"
echo "-- $(openssl version)"
cd "$work"

# ---- what trave-certs makes ----------------------------------------------------------------------------------------
port=$((20000 + RANDOM % 20000))
url="http://127.0.0.1:$port"
sed "s/127.0.0.1:8088/127.0.0.1:$port/g" "$root/certs/src/bin/trave-certs/example.toml" >trave-certs.toml
openssl rand -base64 24 >passphrase
chmod 600 passphrase
"$certs" init 2>init.txt
"$certs" certificate >ca.pem
"$certs" timestamping-certificate >tsa.pem
der ca.pem
der tsa.pem
"$certs" serve 2>serve.txt &
server=$!
for _ in $(seq 100); do
    curl --silent --fail --output /dev/null "$url/crl" && break
    sleep 0.1
done

names=(--member NORD/SH/luebeck --server NORD/SH/luebeck/s1)
request() { # NAME GENPKEY-OPTIONS…: a key and a request that asks for what it will not get
    local name=$1
    shift
    openssl genpkey -quiet "$@" -out "$name.key" 2>/dev/null
    openssl req -new -key "$name.key" -subj "/CN=somebody else" -addext "basicConstraints=critical,CA:TRUE" \
        -addext "subjectAltName=URI:urn:trave:member:NORD/MV/other" -out "$name.csr"
}
request p256 -algorithm EC -pkeyopt ec_paramgen_curve:P-256
request p384 -algorithm EC -pkeyopt ec_paramgen_curve:P-384
request ed25519 -algorithm ED25519
request rsa -algorithm RSA -pkeyopt rsa_keygen_bits:3072
request weak -algorithm RSA -pkeyopt rsa_keygen_bits:1024

echo "-- certificates and revocation lists"
"$certs" crl >crl.pem 2>/dev/null
for kind in p256 p384 ed25519 rsa; do
    "$certs" issue signing "${names[@]}" "$kind.csr" >"$kind.pem" 2>"$kind.txt"
    der "$kind.pem"
    expect "openssl verify -x509_strict -crl_check accepts a signing certificate ($kind)" "OK" \
        openssl verify -x509_strict -CAfile ca.pem -CRLfile crl.pem -crl_check "$kind.pem"
    expect "trave-proto accepts it" "signing of NORD/SH/luebeck at NORD/SH/luebeck/s1" \
        "$verify" chain signing ca.der "$kind.der"
done
"$certs" issue authentication "${names[@]}" p256.csr >auth.pem 2>/dev/null
der auth.pem
for purpose in sslserver sslclient; do
    expect "openssl verify -purpose $purpose accepts an authentication certificate" "OK" \
        openssl verify -x509_strict -purpose $purpose -CAfile ca.pem -CRLfile crl.pem -crl_check auth.pem
done
refuse "openssl verify -purpose sslclient refuses a signing certificate" "unsuitable|unsupported certificate purpose" \
    openssl verify -purpose sslclient -CAfile ca.pem p256.pem
refuse "trave-proto refuses a signing certificate for authentication" "profile authentication" \
    "$verify" chain authentication ca.der p256.der
expect "the request's own names and its wish to be an authority count for nothing" \
    "CA:FALSE" openssl x509 -in p256.pem -noout -ext basicConstraints
expect "the names are those that the authority gave" \
    "^ *URI:urn:trave:member:NORD/SH/luebeck, URI:urn:trave:server:NORD/SH/luebeck/s1$" \
    openssl x509 -in p256.pem -noout -ext subjectAltName
refuse "an RSA key of 1024 bits is not certified" "1024 bits" "$certs" issue signing "${names[@]}" weak.csr
openssl req -in p256.csr -outform DER -out broken.csr
printf '\x00' | dd of=broken.csr bs=1 seek=$(($(stat -c %s broken.csr) - 5)) conv=notrunc status=none
refuse "a request with a wrong signature is not certified" "does not hold it|not PKCS#10" \
    "$certs" issue signing "${names[@]}" broken.csr
"$certs" issue tls-server --name registry --host registry.example --address 127.0.0.1 p256.csr >tls.pem 2>/dev/null
expect "openssl verify accepts a TLS server's certificate for its host name" "OK" \
    openssl verify -x509_strict -purpose sslserver -verify_hostname registry.example -CAfile ca.pem tls.pem
expect "and for its address" "OK" openssl verify -purpose sslserver -verify_ip 127.0.0.1 -CAfile ca.pem tls.pem
"$certs" issue administrator --name "Anna Petersen" p256.csr >admin.pem 2>/dev/null
expect "openssl verify accepts an administrator's certificate" "OK" \
    openssl verify -x509_strict -purpose sslclient -CAfile ca.pem admin.pem

echo "-- OCSP"
ask() { openssl ocsp -issuer ca.pem -CAfile ca.pem -url "$url/ocsp" "$@"; }
expect "openssl ocsp, POST, SHA-1 identifiers: good" "p256.pem: good" ask -cert p256.pem -respout good.ocsp
expect "the response verifies and repeats the nonce" "Response verify OK" ask -cert p256.pem
if ask -cert p256.pem 2>&1 | grep -q "no nonce"; then echo "NOT OK the nonce is missing" >&2; exit 1; fi
expect "openssl ocsp, SHA-256 identifiers: good" "p384.pem: good" ask -sha256 -cert p384.pem
expect "two certificates in one request" "p384.pem: good" ask -cert p256.pem -cert p384.pem
expect "a serial number that was never issued: unknown" "0x1234: unknown" ask -serial 0x1234
expect "trave-proto accepts the response" "good until" "$verify" ocsp good.ocsp p256.der ca.der
refuse "trave-proto refuses it for another certificate" "not about this certificate" \
    "$verify" ocsp good.ocsp p384.der ca.der
openssl ocsp -issuer ca.pem -cert p256.pem -no_nonce -reqout plain.req >/dev/null 2>&1
encoded=$(openssl base64 -A -in plain.req | sed 's/+/%2B/g; s,/,%2F,g; s/=/%3D/g')
curl --silent --fail --dump-header headers.txt --output get.ocsp "$url/ocsp/$encoded"
expect "GET (RFC 5019): good" "p256.pem: good" \
    openssl ocsp -issuer ca.pem -cert p256.pem -CAfile ca.pem -no_nonce -respin get.ocsp
for header in "content-type: application/ocsp-response" "cache-control: max-age=.*must-revalidate" \
    "last-modified: .* GMT" "expires: .* GMT" 'etag: "[0-9a-f]{64}"'; do
    expect "GET has the header ${header%%:*}" "$header" tr -d '\r' <headers.txt
done
curl --silent --output bad.ocsp -H "content-type: application/ocsp-request" --data-binary "rubbish" "$url/ocsp"
refuse "what is no request: malformedRequest" "malformedrequest" openssl ocsp -respin bad.ocsp -noverify
head -c 70000 /dev/zero >large
expect "more than 64 KiB: refused" "413" curl --silent --output /dev/null --write-out '%{http_code}' \
    -H "content-type: application/ocsp-request" --data-binary @large "$url/ocsp"

"$certs" revoke "$(openssl x509 -in p256.pem -noout -serial | cut -d= -f2)" --reason keyCompromise 2>revoke.txt
expect "after another process revoked it: revoked, with the reason" "keyCompromise" ask -cert p256.pem -respout revoked.ocsp
refuse "trave-proto refuses the revoked" "revoked at .*keyCompromise" "$verify" ocsp revoked.ocsp p256.der ca.der
curl --silent --fail --output crl.der "$url/crl"
openssl crl -inform DER -in crl.der -out crl.pem
expect "openssl crl verifies the list" "verify OK" openssl crl -in crl.pem -CAfile ca.pem -noout
expect "the list has version 2 and a number" "X509v3 CRL Number" openssl crl -in crl.pem -noout -text
refuse "openssl verify -crl_check refuses the revoked" "certificate revoked" \
    openssl verify -CAfile ca.pem -CRLfile crl.pem -crl_check p256.pem
expect "and accepts the others" "OK" openssl verify -CAfile ca.pem -CRLfile crl.pem -crl_check p384.pem
expect "trave-proto finds it on the list" "revoked at" "$verify" list crl.der ca.der "$("$certs" list | awk '/keyCompromise/ { print $1 }')"

echo "-- timestamps"
echo "what shall be proved" >data
stamp() { # QUERY-OPTIONS…: asks our authority
    openssl ts -query -data data "$@" -out query.tsq 2>/dev/null
    curl --silent --fail --output reply.tsr -H "content-type: application/timestamp-query" \
        --data-binary @query.tsq "$url/tsa"
}
stamp -sha256 -cert
expect "openssl ts -verify accepts a token, by the query with its nonce" "Verification: OK" \
    openssl ts -verify -queryfile query.tsq -in reply.tsr -CAfile ca.pem
expect "and by the data" "Verification: OK" openssl ts -verify -data data -in reply.tsr -CAfile ca.pem
expect "the token states policy and accuracy" "Policy OID: 1.3.6.1.4.1.32473.1.1" openssl ts -reply -in reply.tsr -text
openssl ts -reply -in reply.tsr -token_out -out token.der 2>/dev/null
expect "trave-proto accepts it" "existed at .* under policy 1.3.6.1.4.1.32473.1.1" "$verify" token token.der data tsa.der
stamp -sha512 -cert
expect "SHA-512 too" "Verification: OK" openssl ts -verify -queryfile query.tsq -in reply.tsr -CAfile ca.pem
stamp -sha256 -no_nonce
expect "without nonce and certificate" "Verification: OK" \
    openssl ts -verify -queryfile query.tsq -in reply.tsr -CAfile ca.pem -untrusted tsa.pem
stamp -sha1
expect "SHA-1: badAlg" "unrecognized or unsupported algorithm" openssl ts -reply -in reply.tsr -text
refuse "trave-proto says so" "badAlg" "$verify" response reply.tsr
stamp -sha256 -tspolicy 1.2.3.4
expect "another policy: unacceptedPolicy" "requested TSA policy is not supported" openssl ts -reply -in reply.tsr -text
refuse "trave-proto says so" "unacceptedPolicy" "$verify" response reply.tsr
curl --silent --output reply.tsr -H "content-type: application/timestamp-query" --data-binary "rubbish" "$url/tsa"
expect "what is no request: badDataFormat" "data submitted has the wrong format" openssl ts -reply -in reply.tsr -text

# ---- what OpenSSL makes ---------------------------------------------------------------------------------------------
echo "-- trave-proto on OpenSSL's own"
"$root/tests/interop/openssl/make.sh" "$work/made" >make.txt 2>&1
cd made
for kind in ec rsa; do
    expect "a chain with an intermediate ($kind)" "signing of NORD/MV/register at NORD/MV/register/s1" \
        "$verify" chain signing "$kind-root.der" "$kind-signing.der" "$kind-sub.der"
    expect "an OCSP response by a delegated responder ($kind)" "good until" \
        "$verify" ocsp "$kind-good.ocsp" "$kind-signing.der" "$kind-sub.der"
    expect "an OCSP response by the issuer itself ($kind)" "good until" \
        "$verify" ocsp "$kind-direct.ocsp" "$kind-signing.der" "$kind-sub.der"
    refuse "revoked ($kind)" "revoked at" "$verify" ocsp "$kind-revoked.ocsp" "$kind-revoked.der" "$kind-sub.der"
    expect "a timestamp ($kind)" "existed at .* under policy 1.2.3.4.1" \
        "$verify" token "$kind-token.der" data "$kind-tsa.der"
    expect "a timestamp with SHA-1 certificate identifier ($kind)" "existed at" \
        "$verify" token "$kind-token-v1.der" data "$kind-tsa.der"
    refuse "a timestamp over other data ($kind)" "another digest" "$verify" token "$kind-token.der" other "$kind-tsa.der"
    expect "a revocation list ($kind)" "revoked at" "$verify" list "$kind.crl" "$kind-sub.der" "$(cat "$kind-revoked.serial")"
done
refuse "a timestamp of another authority" "not by a timestamping authority" "$verify" token ec-token.der data rsa-tsa.der
for kind in p256 p384 ed25519 rsa; do
    expect "a raw signature ($kind)" "signed with" "$verify" signature "../$kind.der" data "$kind.sig"
    refuse "a raw signature over other data ($kind)" "not by this key" "$verify" signature "../$kind.der" other "$kind.sig"
done
echo "all agree"

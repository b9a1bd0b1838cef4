#!/usr/bin/env bash
# Makes with OpenSSL alone what trave-proto shall verify: chains with an intermediate authority, OCSP responses by the
# issuer and by a delegated responder, revocation lists, timestamp tokens, raw signatures. Once with P-256, once with RSA.
#
# make.sh DIRECTORY
set -euo pipefail
mkdir -p "$1"
parent=$(cd "$1/.." && pwd)
cd "$1"

echo "what shall be proved" >data
echo "something else" >other

key() { # KIND NAME
    case $1 in
        ec) openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$2.key" ;;
        rsa) openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$2.key" ;;
    esac
}

cat >extensions <<'END'
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[sub]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[signing]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature,nonRepudiation
extendedKeyUsage = 1.3.6.1.5.5.7.3.36
subjectAltName = URI:urn:trave:member:NORD/MV/register,URI:urn:trave:server:NORD/MV/register/s1
[ocsp]
keyUsage = critical,digitalSignature
extendedKeyUsage = OCSPSigning
noCheck = ignored
[tsa]
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
subjectKeyIdentifier = hash
END

certify() { # KIND NAME SECTION ISSUER SERIAL
    openssl req -new -key "$2.key" -subj "/O=OpenSSL $1/CN=$2" -out "$2.csr"
    openssl x509 -req -in "$2.csr" -CA "$4.pem" -CAkey "$4.key" -set_serial "0x$5" -days 3650 -sha256 \
        -extfile extensions -extensions "$3" -out "$2.pem"
    openssl x509 -in "$2.pem" -outform DER -out "$2.der"
}

for kind in ec rsa; do
    for name in root sub signing revoked ocsp tsa; do key $kind "$kind-$name"; done
    openssl req -x509 -new -key "$kind-root.key" -subj "/O=OpenSSL $kind/CN=root" -days 7300 -sha384 \
        -config extensions -extensions root -out "$kind-root.pem"
    openssl x509 -in "$kind-root.pem" -outform DER -out "$kind-root.der"
    certify $kind "$kind-sub" sub "$kind-root" 02
    certify $kind "$kind-signing" signing "$kind-sub" 1001
    certify $kind "$kind-revoked" signing "$kind-sub" 1002
    certify $kind "$kind-ocsp" ocsp "$kind-sub" 1003
    certify $kind "$kind-tsa" tsa "$kind-sub" 1004
    echo 1002 >"$kind-revoked.serial"

    # The index of OpenSSL's small authority: state, expiry, revocation, serial number, file, subject.
    printf 'V\t361231000000Z\t\t1001\tunknown\t/CN=%s-signing\nR\t361231000000Z\t251231000000Z,keyCompromise\t1002\tunknown\t/CN=%s-revoked\n' \
        $kind $kind >"$kind.index"
    echo "unique_subject = no" >"$kind.index.attr"
    respond() { # NAME CERTIFICATE SIGNER
        openssl ocsp -issuer "$kind-sub.pem" -cert "$2.pem" -no_nonce -reqout "$1.req"
        openssl ocsp -index "$kind.index" -CA "$kind-sub.pem" -rsigner "$3.pem" -rkey "$3.key" -ndays 3650 \
            -reqin "$1.req" -respout "$1.ocsp"
    }
    respond "$kind-good" "$kind-signing" "$kind-ocsp"
    respond "$kind-revoked" "$kind-revoked" "$kind-ocsp"
    respond "$kind-direct" "$kind-signing" "$kind-sub"

    printf '[ca]\ndefault_ca=one\n[one]\ndatabase=%s.index\ncrlnumber=%s.crlnumber\ndefault_md=sha256\ndefault_crl_days=3650\ncrl_extensions=list\n[list]\nauthorityKeyIdentifier=keyid\n' \
        $kind $kind >"$kind.ca"
    echo 01 >"$kind.crlnumber"
    openssl ca -config "$kind.ca" -gencrl -keyfile "$kind-sub.key" -cert "$kind-sub.pem" -out "$kind.crl.pem"
    openssl crl -in "$kind.crl.pem" -outform DER -out "$kind.crl"

    for version in "" -v1; do
        algorithm=sha256
        [ -z "$version" ] || algorithm=sha1
        printf '[tsa]\ndefault_tsa=one\n[one]\nserial=%s.tsaserial\nsigner_digest=sha256\ndefault_policy=1.2.3.4.1\ndigests=sha256\naccuracy=secs:1,millisecs:500\ness_cert_id_alg=%s\n' \
            $kind $algorithm >"$kind.tsa"
        echo 01 >"$kind.tsaserial"
        openssl ts -query -data data -sha256 -cert -out "$kind$version.tsq"
        openssl ts -reply -config "$kind.tsa" -section one -queryfile "$kind$version.tsq" -signer "$kind-tsa.pem" \
            -inkey "$kind-tsa.key" -chain "$kind-sub.pem" -out "$kind$version.tsr"
        openssl ts -reply -in "$kind$version.tsr" -token_out -out "$kind-token$version.der"
    done
done

# Raw signatures by the keys beside this directory, if there are any.
for kind in p256 p384 ed25519 rsa; do
    [ -f "$parent/$kind.key" ] || continue
    case $kind in
        p256) openssl dgst -sha256 -sign "$parent/$kind.key" -out $kind.sig data ;;
        p384) openssl dgst -sha384 -sign "$parent/$kind.key" -out $kind.sig data ;;
        rsa) openssl dgst -sha256 -sign "$parent/$kind.key" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 \
            -out $kind.sig data ;;
        ed25519) openssl pkeyutl -sign -rawin -inkey "$parent/$kind.key" -in data -out $kind.sig ;;
    esac
done

//! The script that checks the files with OpenSSL 3 and a POSIX shell.

use trave_proto::certificate::SignatureAlgorithm;
use trave_proto::clock::Time;

const HEAD: &str = r#"#!/bin/sh
# Checks the files of a Trave proof with OpenSSL 3 and the tools of a POSIX shell, without Trave.
# It checks signatures, certificates, their status, the timestamp and the places in the log. What the bytes say, and
# whether they fit each other (who may sign what, the order of the messages, times), trave-verify tells.
# Compare anchor/1.txt, or the anchor with the lowest number there, with the one that you were given.
set -u
cd "$(dirname "$0")" || exit 2
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
failed=0

# check WHAT COMMAND…: runs the command and says whether it succeeded.
check() {
    what=$1
    shift
    if "$@" >"$work/out" 2>&1; then
        printf 'ok     %s\n' "$what"
    else
        printf 'FAILED %s\n' "$what"
        sed 's/^/         /' "$work/out"
        failed=1
    fi
}

# good FOLDER SECONDS: the OCSP response says that the certificate was good. A responder may name certificates by SHA-256
# or, as OpenSSL asks unless told otherwise, by SHA-1. The response is of then: the period tolerates the years since.
good() {
    for name in -sha256 -sha1; do
        openssl ocsp -respin "$1/ocsp.der" -issuer "$1/issuer.pem" "$name" -cert "$1/signer.pem" \
            -CAfile "$1/authority.pem" -no-CApath -no-CAstore -attime "$2" -validity_period 9999999999 \
            >"$work/said" 2>&1 && grep -q -x -F -e "$1/signer.pem: good" "$work/said" && return 0
        cat "$work/said"
    done
    return 1
}

# merkle FILE ROOT (L|R HASH)…: FILE is a leaf of the tree with this root (RFC 6962).
merkle() {
    root=$2
    { printf '\000'; cat "$1"; } | openssl dgst -sha256 -binary >"$work/hash" || return 1
    shift 2
    while [ $# -gt 0 ]; do
        case $1 in
        L) { printf '\001'; cat "$2" "$work/hash"; } ;;
        R) { printf '\001'; cat "$work/hash" "$2"; } ;;
        esac | openssl dgst -sha256 -binary >"$work/next" || return 1
        mv "$work/next" "$work/hash" || return 1
        shift 2
    done
    cmp "$work/hash" "$root"
}

# at OFFSET FILE IN: FILE stands in IN from this byte on.
at() {
    tail -c "+$(($1 + 1))" "$3" | head -c "$(wc -c <"$2")" | cmp - "$2"
}

# digest_at OFFSET FILE IN: the SHA-256 of FILE stands in IN from this byte on.
digest_at() {
    openssl dgst -sha256 -binary "$2" >"$work/digest" || return 1
    at "$1" "$work/digest" "$3"
}

"#;

const TAIL: &str = r#"
if [ "$failed" -eq 0 ]; then
    echo 'everything here holds'
else
    echo 'something does not hold'
fi
exit "$failed"
"#;

/// A script under way. Names and texts in it are this program's own; nothing from a proof is ever quoted.
pub(super) struct Script(String);

impl Script {
    pub(super) fn new() -> Self {
        Self(HEAD.to_owned())
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push_str(TAIL);
        self.0
    }

    /// A comment that begins a part.
    pub(super) fn part(&mut self, what: &str) {
        self.0.push_str(&format!("\n# {what}\n"));
    }

    fn check(&mut self, what: &str, command: &str) {
        self.0.push_str(&format!("check '{what}' \\\n    {command}\n"));
    }

    /// A command as it is.
    pub(super) fn run(&mut self, command: &str) {
        self.0.push_str(command);
        self.0.push('\n');
    }

    /// `signature` over `signed` by the public key in `key`.
    pub(super) fn signature(
        &mut self,
        what: &str,
        algorithm: SignatureAlgorithm,
        [key, signature, signed]: [&str; 3],
    ) {
        let digest =
            |options: &str| format!("openssl dgst {options} -verify {key} -signature {signature} {signed}");
        let command = match algorithm {
            SignatureAlgorithm::EcdsaP256Sha256 => digest("-sha256"),
            SignatureAlgorithm::EcdsaP384Sha384 => digest("-sha384"),
            SignatureAlgorithm::RsaPssSha256 => {
                digest("-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32")
            }
            SignatureAlgorithm::Ed25519 => format!(
                "openssl pkeyutl -verify -pubin -inkey {key} -rawin -in {signed} -sigfile {signature}"
            ),
        };
        self.check(what, &command);
    }

    /// `file` is a leaf of the tree with the root in `root`.
    pub(super) fn merkle(&mut self, what: &str, file: &str, root: &str, steps: &[(char, String)]) {
        let steps: String = steps.iter().map(|(side, hash)| format!(" {side} {hash}")).collect();
        self.check(what, &format!("merkle {file} {root}{steps}"));
    }

    /// `file` stands in `leaf` at `offset`.
    pub(super) fn stands_in(&mut self, what: &str, offset: usize, file: &str, leaf: &str) {
        self.check(what, &format!("at {offset} {file} {leaf}"));
    }

    /// The SHA-256 of `file` stands in `leaf` at `offset`.
    pub(super) fn digest_in(&mut self, what: &str, offset: usize, file: &str, leaf: &str) {
        self.check(what, &format!("digest_at {offset} {file} {leaf}"));
    }

    /// The chain from `certificate` over `chain` to `authority` at that time.
    pub(super) fn chain(&mut self, what: &str, folder: &str, at: Time) {
        let seconds = at.as_secs();
        self.check(what, &format!(
            "openssl verify -attime {seconds} -purpose any -no-CApath -no-CAstore -CAfile {folder}/authority.pem \
             -untrusted {folder}/chain.pem {folder}/signer.pem"
        ));
    }

    /// The OCSP response shows the certificate as good.
    pub(super) fn status(&mut self, what: &str, folder: &str, at: Time) {
        self.check(what, &format!("good {folder} {}", at.as_secs()));
    }

    /// The timestamp token over the note.
    pub(super) fn timestamp(&mut self, at: Time) {
        let seconds = at.as_secs();
        self.check(
            "a timestamping authority of the configuration stamped the checkpoint",
            &format!(
                "openssl ts -verify -token_in -in checkpoint/timestamp.der -data checkpoint/note.txt \
             -attime {seconds} -partial_chain -CAfile checkpoint/tsa.pem -untrusted checkpoint/tsa.pem"
            ),
        );
        self.run("openssl ts -reply -token_in -in checkpoint/timestamp.der -token_out -text 2>/dev/null | grep '^Time stamp:'");
    }
}

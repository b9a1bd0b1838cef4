#!/usr/bin/env bash
# archive/run.sh WORK: closed segments go to an S3-compatible object storage that nobody here wrote, and a lost log comes back
# from there. It knows who signed a request and how long that counts; it does not check the signature itself (AWS Signature
# Version 4), which is the signing library's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=$1/archive
S3RVER=3.7.1

if [ "$(cat "$work/installed" 2>/dev/null || true)" != "$S3RVER" ]; then
    mkdir -p "$work"
    npm install --silent --no-audit --no-fund --prefix "$work" "s3rver@$S3RVER" >/dev/null
    # It writes its lists in a namespace of long ago; today's is http://s3.amazonaws.com/doc/2006-03-01/, and clients insist.
    sed -i 's#http://doc.s3.amazonaws.com/2006-03-01/#http://s3.amazonaws.com/doc/2006-03-01/#' \
        "$work"/node_modules/s3rver/lib/controllers/*.js
    echo "$S3RVER" >"$work/installed"
fi
rm -rf "$work/data" "$work/said"
"$work/node_modules/.bin/s3rver" -d "$work/data" -a 127.0.0.1 -p 0 --configure-bucket trave >"$work/said" 2>&1 &
storage=$!
trap 'kill $storage 2>/dev/null || true; wait' EXIT
for _ in $(seq 100); do
    address=$(sed -n 's/^S3rver listening on //p' "$work/said")
    [ -n "$address" ] && break
    kill -0 $storage || { cat "$work/said" && exit 1; }
    sleep 0.1
done
cd "$root"
TRAVE_OBJECT_STORAGE="http://$address" cargo test --locked --quiet -p trave-tests --test archive -- \
    --ignored the_log_comes_back_from_an_object_storage
objects=$(find "$work/data/trave" -path '*mv*s1*' -type f -name '*_object' | wc -l)
[ "$objects" -ge 2 ] || { echo "the storage holds $objects objects" && exit 1; }
echo "ok   s3rver $S3RVER holds $objects sealed segments; the lost log came back from them"

#!/usr/bin/env bash
# curl, directly and through both security servers: whole files both ways, HTTP/1.1 and HTTP/2, and bodies that are asked
# for first. usage: curl.sh DIRECT_URL ENDPOINTS_JSON WORK_DIR
set -euo pipefail
direct=$1 work=$3
read -r base headers < <(python3 - "$2" "$work/curl.headers" <<'PYTHON'
import json, sys
rest = json.load(open(sys.argv[1], encoding="utf-8"))["rest"]
with open(sys.argv[2], "w", encoding="utf-8") as file:
    file.writelines(f"{name}: {value}\n" for name, value in rest["headers"].items())
print(rest["base"] + "/behind", sys.argv[2])
PYTHON
)
failed=0
# same WHAT FLAG… PATH: curl prints the same status and the same bytes on both ways.
same() {
    local what=$1 here there
    shift
    local path=${*: -1} flags=("${@:1:$#-1}")
    here=$(curl -sS --max-time 60 -w '%{http_code} %{size_download}' -o "$work/curl.direct" "${flags[@]}" "$direct$path")
    there=$(curl -sS --max-time 60 -w '%{http_code} %{size_download}' -o "$work/curl.through" "${flags[@]}" -H "@$headers" "$base$path")
    # wsgidav's pages tell where and when they were made.
    sed -i -E 's/[0-9-]{10} [0-9:.]{15}/TIME/; s,/behind/,/direct/,' "$work/curl.direct" "$work/curl.through"
    if [ "$here" = "$there" ] && cmp -s "$work/curl.direct" "$work/curl.through"; then
        echo "ok   rest: curl $what: $here"
    else
        echo "FAIL rest: curl $what: $here / $there"
        failed=$((failed + 1))
    fi
}
same "GET of 32 MiB" /gross.bin
same "PUT of 32 MiB, asked for first" -T "$work/files/direct/gross.bin" -H 'expect: 100-continue' /kopie.bin
cmp -s "$work/files/direct/kopie.bin" "$work/files/behind/kopie.bin" || { echo "FAIL rest: curl: the copies differ" && failed=$((failed + 1)); }
same "PUT in chunks" -X PUT -H 'transfer-encoding: chunked' --data-binary "@$work/files/direct/akte.txt" /stueck.txt
same "GET of what was put in chunks" /stueck.txt
heads() { curl -sS -I "$@" | tr -d '\r' | tr '[:upper:]' '[:lower:]' | grep '^content-\|^accept-\|^http' | sort; }
if [ "$(heads "$direct/akte.txt")" = "$(heads -H "@$headers" "$base/akte.txt")" ]; then
    echo "ok   rest: curl HEAD"
else
    echo "FAIL rest: curl HEAD" && failed=$((failed + 1))
fi
there=$(curl -sS --http2-prior-knowledge -H "@$headers" -w ' %{http_code} %{http_version}' "$base/akte.txt")
if [ "$there" = "$(printf '%s\n 200 2' "$(cat "$work/files/direct/akte.txt")")" ]; then
    echo "ok   rest: curl over HTTP/2"
else
    echo "FAIL rest: curl over HTTP/2: $there" && failed=$((failed + 1))
fi
printf -- '-- %s: %s failed\n' "$(curl --version | head -1 | cut -d ' ' -f 1-2)" "$failed"
[ "$failed" -eq 0 ]

"""Calls a WebDAV server with requests and httpx, directly and through both security servers, and compares what each sees.

usage: compare.py DIRECT_URL ENDPOINTS_JSON
"""

import json
import re
import sys

import httpx
import requests

# What the security servers tell by themselves, and what each hop makes anew (RFC 9110, section 7.6.1; X-Road passes on
# neither the server's name nor the connection's state).
OURS = ("x-road-", "trave-")
OF_THE_HOP = {"connection", "date", "keep-alive", "server", "transfer-encoding"}
TIME = re.compile(rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?|\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT|getetag>[^<]*<")
failures = 0


def verdict(holds, what, detail=""):
    global failures
    failures += not holds
    print(f"{'ok  ' if holds else 'FAIL'} rest: {what}{'' if holds else ': ' + detail}", flush=True)


def seen(answer):
    """Status, headers of the other end, and body, as values that can be compared."""
    headers = sorted(
        (name.lower(), value)
        for name, value in answer.headers.items()
        if not name.lower().startswith(OURS) and name.lower() not in OF_THE_HOP | {"last-modified", "etag"}
    )
    if answer.status_code == 204:
        # None belongs there (RFC 9110, section 8.6); wsgidav says 0.
        headers = [field for field in headers if field[0] != "content-length"]
    # Pages and listings tell where and when they were made, and of which file.
    body = TIME.sub(b"TIME", answer.content.replace(b"/behind/", b"/direct/"))
    return answer.status_code, headers, body


CASES = [
    ("GET", "/akte.txt", {}, None),
    ("HEAD", "/akte.txt", {}, None),
    ("GET", "/akte.txt", {"range": "bytes=2-5"}, None),
    ("GET", "/akte.txt", {"range": "bytes=9999-"}, None),
    ("GET", "/nichts.txt", {}, None),
    ("GET", "/gross.bin", {}, None),
    ("OPTIONS", "/akte.txt", {}, None),
    ("PUT", "/neu.txt", {"content-type": "text/plain"}, b"neu\n"),
    ("PUT", "/viel.bin", {}, b"v" * 5_000_000),
    ("GET", "/viel.bin", {}, None),
    ("PROPFIND", "/akte.txt", {"depth": "0"}, None),
    ("MKCOL", "/ordner", {}, None),
    ("COPY", "/neu.txt", {"destination": "BASE/ordner/kopie.txt"}, None),
    ("MOVE", "/neu.txt", {"destination": "BASE/ordner/umgezogen.txt"}, None),
    ("GET", "/neu.txt", {}, None),
    ("GET", "/ordner/kopie.txt", {}, None),
    ("GET", "/ordner/umgezogen.txt", {}, None),
    ("PUT", "/stra%C3%9Fe%20%26.txt", {}, b"a"),
    ("GET", "/stra%C3%9Fe%20%26.txt?a=b%2Fc", {}, None),
    ("DELETE", "/ordner", {}, None),
    ("DELETE", "/viel.bin", {}, None),
]


def ask(client, base, own, case):
    method, path, headers, body = case
    headers = own | {name: value.replace("BASE", base) for name, value in headers.items()}
    content = {"content": body} if isinstance(client, httpx.Client) else {"data": body}
    return client.request(method, base + path, headers=headers, **content)


def main():
    direct = sys.argv[1]
    with open(sys.argv[2], encoding="utf-8") as file:
        rest = json.load(file)["rest"]
    through = rest["base"] + "/behind"
    plain = requests.Session()
    plain.trust_env = False
    for name, client in (("requests", plain), ("httpx", httpx.Client(timeout=60, trust_env=False))):
        for case in CASES:
            here, there = ask(client, direct, {}, case), ask(client, through, rest["headers"], case)
            same = seen(here) == seen(there) and "trave-exchange-id" in there.headers
            verdict(same, f"{name} {case[0]} {case[1]} {here.status_code}", f"{seen(here)!s:.400} / {seen(there)!s:.400}")
            validator = here.headers.get("etag"), there.headers.get("etag")
            if case[:2] == ("GET", "/akte.txt") and all(validator) and not case[2]:
                again = [
                    ask(client, base, own | {"if-none-match": tag}, case).status_code
                    for base, own, tag in ((direct, {}, validator[0]), (through, rest["headers"], validator[1]))
                ]
                verdict(again == [304, 304], f"{name} GET with If-None-Match {again}")
    refused = plain.get(through + "/akte.txt", headers=rest["headers"] | {"trave-purpose": "neugier"})
    told = refused.json()["reason"], refused.headers["x-road-error"]
    verdict(told == ("unknown_purpose", "server.clientproxy.unknown_purpose"), f"requests: a refusal says why: {told}")
    print(f"-- requests {requests.__version__}, httpx {httpx.__version__}: {failures} failed")
    return failures


sys.exit(1 if main() else 0)

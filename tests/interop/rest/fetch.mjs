// Node's fetch, directly and through both security servers: what it sees of each, also of a body that streams both ways.
// usage: fetch.mjs DIRECT_URL ENDPOINTS_JSON
import { readFileSync } from "node:fs";

const [direct, file] = process.argv.slice(2);
const { base, headers } = JSON.parse(readFileSync(file, "utf8")).rest;
let failures = 0;
const verdict = (holds, what) => {
    failures += holds ? 0 : 1;
    console.log(`${holds ? "ok  " : "FAIL"} rest: fetch ${what}`);
};
const same = async (what, path, options) => {
    const seen = [];
    for (const [url, own] of [[direct, {}], [`${base}/behind`, headers]]) {
        const body = options?.parts && new ReadableStream({
            start(controller) {
                for (const part of options.parts) controller.enqueue(new TextEncoder().encode(part));
                controller.close();
            },
        });
        const request = { method: options?.method, headers: { ...own, ...options?.headers }, body, duplex: "half" };
        const answer = await fetch(url + path, request);
        // wsgidav's pages tell where and when they were made.
        const text = (await answer.text()).replace("/behind/", "/direct/").replace(/\d{4}-\d\d-\d\d [\d:.]+/, "TIME");
        seen.push(`${answer.status} ${answer.headers.get("content-type")} ${text}`);
    }
    verdict(seen[0] === seen[1], `${what}: ${seen[0] === seen[1] ? seen[0].trim().split("\n")[0].slice(0, 80) : seen.join(" / ")}`);
};
await same("GET", "/akte.txt");
await same("GET with a range", "/akte.txt", { headers: { range: "bytes=0-3" } });
await same("PUT of a stream", "/strom.txt", { method: "PUT", parts: ["eins ", "zwei ", "drei"] });
await same("GET of what was streamed", "/strom.txt");
await same("GET of nothing", "/nichts");
console.log(`-- Node ${process.version}: ${failures} failed`);
process.exit(failures ? 1 : 0);

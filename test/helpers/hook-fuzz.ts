// Requests that no forge would send: never a crash, never a 5xx but 503, never a run.
import { connect } from "node:net";
import { http, pushPayload, secret, sha, sign, type HookServer } from "./hooks.ts";
import { seeded } from "./hook-storm.ts";

const words = [
  "",
  "push",
  "release",
  "ping",
  "constructor",
  "__proto__",
  "../..",
  "-x",
  "$(id)",
  "\u0000",
  "é",
  "%00",
  "null",
  "1e999",
  "[]",
  "{}",
  "x".repeat(3000),
];
const json = [
  "null",
  "1",
  '"x"',
  "[]",
  "{}",
  '{"ref":1}',
  '{"repository":null}',
  '{"__proto__":{"ref":"refs/heads/main"}}',
  `${"[".repeat(5000)}`,
  '{"a":"\\ud800"}',
  "\ufeff{}",
  '{"push":{"changes":[null,1,{}]}}',
  '{"action":"published","release":[]}',
  "payload=%7B",
  "payload=%7B%7D&payload=1",
];

/** Sends `count` requests; returns how often each status came, and 0 for a closed connection. */
export async function fuzz(server: HookServer, count: number, seed: number): Promise<Map<number, number>> {
  const random = seeded(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const statuses = new Map<number, number>();
  const one = async (): Promise<number> => {
    if (random() < 0.15) return await rawRequest(server.port, garbage(random));
    const { body, headers, method, path } = request(random, pick);
    return await http({ port: server.port }, path, {
      method,
      headers,
      ...(method === "POST" ? { body } : {}),
    }).then(
      ({ status }) => status,
      () => 0,
    );
  };
  for (let sent = 0; sent < count; ) {
    const batch = Math.min(16, count - sent);
    for (const status of await Promise.all(Array.from({ length: batch }, one))) {
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
    sent += batch;
  }
  return statuses;
}

function request(random: () => number, pick: <T>(list: readonly T[]) => T) {
  // a good push, then spoiled in some way that a run must not come of
  let body: string = JSON.stringify(pushPayload("me/site", sha(Math.floor(random() * 1000))));
  const how = Math.floor(random() * 6);
  let key = secret;
  if (how === 0) body = pick(json);
  if (how === 1) body = mutated(body.replace("refs/heads/main", "refs/heads/nobody"), random);
  if (how === 2) key = pick(["", "wrong", secret.slice(1)]);
  if (how === 3) body = body.replace("refs/heads/main", pick(words).replace(/["\\\u0000]/g, ""));
  if (how === 4) body = body.replace("me/site", pick(words).replace(/["\\\u0000]/g, ""));
  if (how === 5) body = body.replace(/"after":"[^"]*"/, `"after":${JSON.stringify(pick(words))}`);
  const headers: Record<string, string> = {
    "content-type": pick([
      "application/json",
      "application/json",
      "application/x-www-form-urlencoded",
      "text/html",
      "",
    ]),
    "x-hub-signature-256": `sha256=${sign(body, key)}`,
    "x-github-delivery": String(random()),
  };
  const event = random() < 0.7 ? "push" : pick(words).replace(/[^\x21-\x7e]/g, "");
  headers[pick(["x-github-event", "x-github-event", "x-gitlab-event", "x-event-key", "x-gogs-event"])] = event;
  if (random() < 0.1) headers["x-github-delivery"] = pick(["a b", "x".repeat(300), ""]);
  if (random() < 0.05) headers["content-encoding"] = "gzip";
  const method = random() < 0.9 ? "POST" : pick(["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"]);
  const path =
    random() < 0.9
      ? "/hook"
      : pick(["/", "/hook?x", "/runs/../..", "//hook", "/%00", "/github/callback", "/metrics", "/runs"]);
  return { body, headers, method, path };
}

function mutated(text: string, random: () => number): string {
  const at = Math.floor(random() * text.length);
  const length = Math.floor(random() * 20);
  return text.slice(0, at) + '"{[,:0\\u'.slice(Math.floor(random() * 8)) + text.slice(at + length);
}

function garbage(random: () => number): Buffer {
  const starts = [
    "POST /hook HTTP/1.1\r\n",
    "GET / HTTP/9.9\r\n",
    "",
    "POST /hook HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
    "POST /hook HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "\u0016\u0003\u0001",
  ];
  const start = starts[Math.floor(random() * starts.length)] ?? "";
  const bytes = Buffer.from(Array.from({ length: Math.floor(random() * 200) }, () => Math.floor(random() * 256)));
  return Buffer.concat([Buffer.from(start, "latin1"), bytes, Buffer.from("\r\n\r\n")]);
}

function rawRequest(port: number, bytes: Buffer): Promise<number> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    let text = "";
    const done = () => {
      socket.destroy();
      resolve(Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0));
    };
    socket.on("error", done);
    socket.on("close", done);
    socket.on("data", (data: Buffer) => {
      text += data.toString("latin1");
      done();
    });
    socket.setTimeout(300, done);
    socket.write(bytes);
  });
}

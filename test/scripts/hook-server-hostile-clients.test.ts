// Clients that would keep others out: idle, slow, large, unsigned, odd. Genuine deliveries get in beside all of them.
import { readFile, writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { http, makeYard, pushPayload, sha, sign, startHooks } from "../helpers/hooks.ts";
import { slowness, waitFor } from "../helpers/wait.ts";

/** A connection with what came over it so far; errors are the server's right. */
function open(port: number, text: string | Uint8Array = "") {
  const socket = connect(port, "127.0.0.1");
  let answer = "";
  const closed = new Promise<string>((resolve) => socket.on("close", () => resolve(answer)));
  socket.on("error", () => {});
  socket.setEncoding("latin1").on("data", (data: string) => {
    answer += data;
  });
  socket.write(text);
  return { socket, closed, answer: () => answer };
}

const announced = 25 * 1024 * 1024;
const head = (length: number, more = `x-hub-signature-256: sha256=${sign("")}\r\n`) =>
  `POST /hook HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-github-event: push\r\ncontent-length: ${length}\r\n${more}\r\n`;

/** Writes for as long as the server takes it. */
async function flood(socket: Socket, bytes: number): Promise<void> {
  const piece = Buffer.alloc(1024 * 1024, "x");
  for (let sent = 0; sent < bytes && !socket.destroyed; sent += piece.length) {
    const part = piece.subarray(0, Math.min(piece.length, bytes - sent));
    await new Promise<unknown>((resolve) => socket.write(part, resolve));
  }
}

test("beside 200 hostile connections of every kind all of 220 genuine pushes are accepted", async () => {
  const server = await startHooks(await makeYard({ repos: { "me/site": "on: { push: /bin/true }" } }));
  const kinds: ((port: number) => Socket)[] = [
    (port) => open(port).socket,
    (port) => open(port, "POST /hook HTTP/1.1\r\nhost:").socket,
    // an announced size of which one byte comes: without a signature, and with a wrong one
    (port) => open(port, `${head(announced, "")}{`).socket,
    (port) => open(port, `${head(announced)}{`).socket,
    (port) => {
      const { socket } = open(port, head(announced));
      const timer = setInterval(() => socket.write("x"), 20);
      socket.once("close", () => clearInterval(timer));
      return socket;
    },
    // most of a large body, and then nothing
    (port) => {
      const { socket } = open(port, head(announced));
      void flood(socket, 4 * 1024 * 1024);
      return socket;
    },
    (port) => {
      const { socket } = open(port, head(announced));
      void flood(socket, announced);
      return socket;
    },
  ];
  const hostile = Array.from({ length: 200 }, (_, n) => kinds[n % kinds.length]?.(server.port));
  await sleep(300);
  const statuses = new Map<number, number>();
  for (let sent = 0; sent < 220; sent += 20) {
    const batch = Array.from({ length: 20 }, (_, n) => server.push("me/site", sha(sent + n)));
    for (const { status } of await Promise.all(batch)) statuses.set(status, (statuses.get(status) ?? 0) + 1);
  }
  assert.equal([...statuses], [[202, 220]]);
  // a large one has its turn when those that hold on are gone
  const large = { ...pushPayload("me/site", sha(1000)), note: "x".repeat(8 * 1024 * 1024) };
  await waitFor(async () => {
    for (let n = 0; n < 8; n++) hostile.push(open(server.port, `${head(announced)}{`).socket);
    return (await server.send({ payload: large })).status === 429;
  });
  for (const socket of hostile) socket?.destroy();
  await waitFor(async () => (await server.send({ payload: large })).status === 202);
  assert.not.match(server.running.output(), /bug:/);
  await server.stop();
});

test("a refusal reaches clients that read only after they have sent all", async () => {
  const server = await startHooks(await makeYard());
  const table: [string, number, RegExp][] = [
    [head(20_000_000, ""), 20_000_000, /^HTTP\/1\.1 401 /],
    [head(30_000_000), 30_000_000, /^HTTP\/1\.1 413 /],
    [head(1_000_000).replace("/json", "/xml"), 1_000_000, /^HTTP\/1\.1 415 /],
  ];
  for (const [start, length, expected] of table) {
    const { socket, closed } = open(server.port, start);
    socket.pause();
    await flood(socket, length);
    assert.not.ok(socket.destroyed, "it is read on");
    socket.resume();
    const answer = await closed;
    assert.match(answer, expected);
    assert.match(answer, /\r\nconnection: close\r\n/i);
    assert.match(answer, /"error":"[^"]+"\}\n$/);
  }
  await server.stop();
});

test("after a refusal a client that sends without end is cut off", async () => {
  const server = await startHooks(await makeYard());
  const endless = open(server.port, head(10 ** 12, ""));
  const begun = performance.now();
  await flood(endless.socket, 10 ** 12);
  assert.match(await endless.closed, /^HTTP\/1\.1 413 |^HTTP\/1\.1 401 |^$/);
  assert.ok(performance.now() - begun < 20_000 * slowness());
  await server.stop();
});

test("a client that asks before it sends gets its refusal instead of a go-ahead, or the go-ahead", async () => {
  const server = await startHooks(await makeYard());
  const refused = open(server.port, head(10_000_000, "expect: 100-continue\r\n"));
  assert.match(await refused.closed, /^HTTP\/1\.1 401 /);
  const body = JSON.stringify(pushPayload("me/site", sha(1)));
  const more = `expect: 100-continue\r\nconnection: close\r\nx-hub-signature-256: sha256=${sign(body)}\r\n`;
  const taken = open(server.port, head(body.length, more));
  while (taken.answer() === "") await sleep(10);
  assert.is(taken.answer(), "HTTP/1.1 100 Continue\r\n\r\n");
  taken.socket.write(body);
  assert.match(await taken.closed, /\r\n\r\nHTTP\/1\.1 202 /);
  await server.stop();
});

test("requests that two readers could understand in two ways start nothing", async () => {
  const server = await startHooks(await makeYard());
  const body = JSON.stringify(pushPayload("me/site", sha(1)));
  const chunked = `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
  const signed = `host: x\r\ncontent-type: application/json\r\nx-github-event: push\r\nx-hub-signature-256: sha256=${sign(body)}\r\nconnection: close\r\n`;
  const length = `content-length: ${body.length}\r\n`;
  const first = "POST /hook HTTP/1.1\r\n";
  const requests = [
    `${first}${signed}transfer-encoding: chunked\r\n\r\n${chunked}`,
    `${first}${signed}${length}transfer-encoding: chunked\r\n\r\n${chunked}`,
    `${first}${signed}${length}content-length: 5\r\n\r\n${body}`,
    `${first}${signed}content-length: +${body.length}\r\n\r\n${body}`,
    `${first}${signed}content-length : ${body.length}\r\n\r\n${body}`,
    `${first}${signed}transfer-encoding: xchunked\r\n\r\n${chunked}`,
    `${first}${signed}transfer-encoding: chunked, gzip\r\n\r\n${chunked}`,
    `POST /hook HTTP/1.0\r\n${signed}transfer-encoding: chunked\r\n\r\n${chunked}`,
    `${first}${signed}x: y\r\n folded\r\n${length}\r\n${body}`,
    `${first.replace("\r", "")}${signed.replaceAll("\r", "")}${length.replace("\r", "")}\n${body}`,
    `${first}${signed}x-hub-signature-256: sha256=${sign("")}\r\n${length}\r\n${body}`,
    `${first}${signed}x-filler: ${"x".repeat(20_000)}\r\n${length}\r\n${body}`,
  ];
  for (const request of requests) {
    const { socket, closed } = open(server.port, request);
    const answer = await closed;
    socket.destroy();
    assert.match(answer, /^(?:HTTP\/1\.1 4\d\d |$)/, request.slice(0, 300));
  }
  assert.equal(await server.runs(), []);
  // and this one is plain
  const plain = `POST /hook HTTP/1.0\r\n${signed}${length}\r\n${body}`;
  assert.match(await open(server.port, plain).closed, /^HTTP\/1\.1 202 /);
  await server.stop();
});

test("a body that is cut off starts nothing, whichever way its connection ends", async () => {
  const server = await startHooks(await makeYard());
  const body = JSON.stringify(pushPayload("me/site", sha(1)));
  const request = head(body.length, `x-hub-signature-256: sha256=${sign(body)}\r\n`) + body.slice(0, -1);
  for (const way of ["end", "destroy"] as const) {
    const { socket } = open(server.port);
    await new Promise<unknown>((resolve) => socket.write(request, resolve));
    socket[way]();
  }
  await server.running.until(/cut off[^]*cut off/);
  assert.equal(await server.runs(), []);
  await server.stop();
});

test("a client that closes its side when it has sent all gets its answer", async () => {
  const server = await startHooks(await makeYard());
  const body = JSON.stringify(pushPayload("me/site", sha(1)));
  const signed = `x-hub-signature-256: sha256=${sign(body)}\r\n`;
  for (const [request, expected] of [
    [head(body.length, signed) + body, /^HTTP\/1\.1 202 /],
    [head(body.length, "") + body, /^HTTP\/1\.1 401 /],
    ["GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", /^HTTP\/1\.1 200 /],
  ] as const) {
    const socket = connect({ port: server.port, host: "127.0.0.1", allowHalfOpen: true });
    let answer = "";
    socket.setEncoding("latin1").on("data", (data: string) => (answer += data));
    socket.end(request);
    await new Promise((resolve) => socket.once("close", resolve));
    assert.match(answer, expected);
  }
  await server.stop();
});

test("with an address of its own the page is there, and deliveries alone at theirs", async () => {
  const dir = await makeYard({ repos: { "me/site": "public: true" }, top: "status: { public: true }" });
  const [deliveries, page] = [join(dir, "deliveries.sock"), join(dir, "page.sock")];
  const file = join(dir, "hooks.yml");
  const listen = `listen: { deliveries: 'unix:${deliveries}', page: '${page}' }`;
  await writeFile(file, (await readFile(file, "utf8")).replace(/^listen: .*/, listen));
  const server = await startHooks(dir);
  const ask = async (socketPath: string, path: string, body?: string) =>
    (await http({ socketPath }, path, body === undefined ? {} : { body })).status;
  for (const [path, expected] of [
    ["/healthz", [200, 200]],
    ["/", [404, 200]],
    ["/sign-in", [404, 200]],
    ["/runs", [404, 200]],
  ] as const)
    assert.equal([await ask(deliveries, path), await ask(page, path)], expected, path);
  assert.is(await ask(deliveries, "/hook", "{}"), 415);
  await server.stop();
});

test("a body that does not say its length is refused before a piece is kept", async () => {
  const server = await startHooks(await makeYard());
  const body = JSON.stringify({ ...pushPayload("me/site", sha(1)), note: "x".repeat(500_000) });
  const { socket, closed } = open(
    server.port,
    head(0, `connection: close\r\nx-hub-signature-256: sha256=${sign(body)}\r\n`).replace(
      "content-length: 0",
      "transfer-encoding: chunked",
    ),
  );
  socket.write(body.replace(/[^]/g, "1\r\n$&\r\n"));
  socket.write("0\r\n\r\n");
  assert.match(await closed, /^HTTP\/1\.1 411 /);
  await server.stop();
});

test.run();

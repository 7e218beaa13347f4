// The page as a browser's requests meet it: who sees what, who may steer, what ends when, and the live log's resume.
import { readFileSync } from "node:fs";
import { once } from "node:events";
import { chmod, writeFile } from "node:fs/promises";
import { type IncomingMessage, request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { type HookServer, http, makeYard, pushPayload, sha, sign, startHooks } from "../helpers/hooks.ts";
import { get, pageYard, password, post, signIn } from "../helpers/page.ts";
import { prepare } from "../helpers/prepare.ts";
import { startScript } from "../helpers/run.ts";
import { waitFor } from "../helpers/wait.ts";

/** An answer that goes on: what came so far, and whether it has ended. */
function follow(server: HookServer, path: string, headers: Record<string, string>) {
  const state = { text: "", isOver: false, status: 0, close: () => {} };
  const call = request(
    { host: "127.0.0.1", port: server.port, path, headers, agent: false },
    (response: IncomingMessage) => {
      state.status = response.statusCode ?? 0;
      response.setEncoding("utf8").on("data", (text: string) => (state.text += text));
      for (const event of ["end", "close", "error"]) response.on(event, () => (state.isOver = true));
    },
  );
  call.on("error", () => (state.isOver = true));
  call.end();
  state.close = () => call.destroy();
  return state;
}

const linesOf = (text: string) =>
  text
    .split("\n\n")
    .filter((block) => !/^event: |\nevent: /m.test(block))
    .flatMap((block) => block.split("\n").filter((line) => line.startsWith("data: ")))
    .map((line) => line.slice(6));
const lastId = (text: string) => [...text.matchAll(/^id: (.+)$/gm)].at(-1)?.[1] ?? "";

/** One for the tests that change nothing there, with a run that has ended. */
let shared: HookServer;
let ended = "";
prepare(test, async () => {
  shared = await startHooks(
    await pageYard({
      job: "printf 'fine\\nall \\033[31mred\\033[0m words\\n\\033[91merror\\033[0m: it broke\\n'",
    }),
  );
  ended = (await shared.push("me/site", sha(1))).body.run;
  await shared.idle();
});
test.after(async () => await shared?.stop());

test("without status: there is no page; with it strangers get the sign-in form, and nothing of what is there", async () => {
  const bare = await startHooks(await makeYard());
  assert.is((await get(bare, "/")).status, 404);
  await bare.stop();
  const server = shared;
  const paths = [
    "/",
    "/repos/me/site",
    "/repos/me/nothing",
    `/runs/${ended}`,
    "/runs/20260101T000000Z-000000",
    `/runs/${ended}/log`,
    `/runs/${ended}/lines`,
    "/live",
    "/fleet",
    "/x",
  ];
  for (const path of paths) {
    const answer = await get(server, path);
    assert.is(answer.status, 401, path);
    assert.match(answer.text, "Password or token", path);
    assert.not.match(answer.text.replaceAll(/value="[^"]*"/g, ""), /me\/site|succeeded/, path);
  }
  assert.is((await get(server, "/repos/me/site/badge.svg")).status, 404);
  // a program gets JSON, as before
  const plain = await http(server, "/runs");
  assert.equal([plain.status, plain.body], [401, { error: "a token is needed" }]);
});

test("a page comes with headers that keep it to itself, and the cookie is out of reach", async () => {
  const server = shared;
  const cookie = await signIn(server);
  const { headers, text } = await get(server, "/", cookie);
  assert.match(
    String(headers["content-security-policy"]),
    /default-src 'none'.*script-src 'self'.*frame-ancestors 'none'/,
  );
  assert.is(headers["referrer-policy"], "same-origin");
  assert.is(headers["x-content-type-options"], "nosniff");
  assert.is(headers["cache-control"], "no-store");
  // so do those that are sent to a script, and refusals
  for (const path of ["/nothing", "/page/gone.js", "/runs/nothing/lines", "/repos/a/b/badge.svg"]) {
    const refused = await http(server, path, { headers: { cookie } });
    assert.is(refused.status, 404, path);
    for (const name of ["cache-control", "content-security-policy", "x-content-type-options"])
      assert.is(refused.headers[name], headers[name], `${name} of ${path}`);
  }
  assert.not.match(text, / style="| on[a-z]+="|<script>/);
  for (const [, path] of text.matchAll(/(?:src|href)="(\/page\/[^"]+)"/g))
    assert.is((await http(server, path ?? "")).status, 200, path);
  const tls = await post(server, "/sign-in", {
    body: `secret=${encodeURIComponent(password)}&to=//evil.example`,
    headers: { "x-forwarded-proto": "https", origin: `https://127.0.0.1:${server.port}` },
  });
  assert.match(
    String(tls.headers["set-cookie"]),
    /^__Host-boatyard=[\w-]{43}; Path=\/; HttpOnly; SameSite=Lax; Secure$/,
  );
  assert.is(tls.headers.location, "/");
});

test("what changes something needs a session that may, and an Origin of our own", async () => {
  const dir = await pageYard({ job: "sleep 600" });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  const path = `/runs/${body.run}/cancel`;
  const cookie = await signIn(server);
  const guest = await signIn(server, "token-of-a-guest-who-sees");
  assert.is((await post(server, path)).status, 401, "a stranger");
  assert.is((await post(server, path, { cookie: guest })).status, 403, "a guest");
  assert.not.match((await get(server, `/runs/${body.run}`, guest)).text, "/cancel");
  for (const headers of [
    { origin: "https://evil.example" },
    { origin: "null" },
    { "sec-fetch-site": "cross-site" },
    { "sec-fetch-site": "same-site" },
  ])
    for (const to of [path, "/sign-in", "/sign-out"])
      assert.is((await post(server, to, { cookie, headers })).status, 403, JSON.stringify([to, headers]));
  await waitFor(async () => (await server.runs())[0]?.state !== "starting");
  assert.is((await server.runs())[0]?.state, "running", "reading and refused requests change nothing");
  const question = await get(server, path, cookie);
  assert.match(question.text, `<form method="post" action="${path}">`);
  assert.is((await post(server, path, { cookie })).headers.location, `/runs/${body.run}`);
  await server.idle();
  const again = await post(server, `/runs/${body.run}/rerun`, { cookie });
  const run = again.headers.location?.slice("/runs/".length) ?? "";
  assert.equal((await server.local(`/runs/${run}`)).body.rerun, { of: body.run, by: "password" });
  assert.is((await server.local(`/runs/${body.run}`)).body.cancelledBy, "password");
  // named tokens of programs have the same rights
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
  const steer = (token: string) => http(server, `/runs/${run}/cancel`, { method: "POST", headers: bearer(token) });
  assert.is((await http(server, "/runs", { headers: bearer("token-of-a-guest-who-sees") })).status, 200);
  assert.is((await steer("token-of-a-guest-who-sees")).status, 403);
  assert.is((await steer("token-of-the-programs")).status, 202);
  await server.idle();
  await server.stop();
});

test("what another port of the page's host serves is not ours", async () => {
  const server = await startHooks(await pageYard({ top: "url: http://ci.example.org:8080" }));
  const from = async (origin: string) =>
    (
      await post(server, "/sign-in", {
        // from a proxy that drops the port
        headers: { origin, host: "ci.example.org" },
        body: new URLSearchParams({ secret: password }).toString(),
      })
    ).status;
  assert.is(await from("http://ci.example.org:8080"), 303);
  assert.is(await from("http://ci.example.org"), 403);
  assert.is(await from("http://ci.example.org:8081"), 403);
  await server.stop();
});

test("behind a proxy that sends another Host the origin of url: is ours; no other is", async () => {
  const server = await startHooks(await pageYard({ top: "url: https://ci.example.org/hooks\n" }));
  const from = (origin: string) =>
    post(server, "/sign-in", {
      headers: { origin, host: "backend:3420" },
      body: new URLSearchParams({ secret: password }).toString(),
    });
  assert.is((await from("https://ci.example.org")).status, 303);
  for (const origin of [
    "http://ci.example.org",
    "https://ci.example.org:8443",
    "https://example.org",
    "https://ci.example.org.evil.example",
    "null",
  ])
    assert.is((await from(origin)).status, 403, origin);
  await server.stop();
});

/** A sign-in; returns the cookie's header, or the page that says why there is none. */
async function begin(server: HookServer, headers: Record<string, string> = {}): Promise<string> {
  const body = new URLSearchParams({ secret: password }).toString();
  const answer = await post(server, "/sign-in", { headers, body });
  return String(answer.headers["set-cookie"] ?? answer.text);
}

test("where url: is https sessions are for TLS alone, wherever it ends", async () => {
  const server = await startHooks(await pageYard({ top: "url: https://ci.example.org" }));
  const cookie = await begin(server, { origin: "https://ci.example.org", host: "backend:3420" });
  assert.match(cookie, /^__Host-boatyard=.*; Secure$/);
  assert.is((await get(server, "/", cookie.split(";")[0])).status, 200);
  // a browser that came in the clear would drop the cookie, and be asked again and again
  const clear = { origin: "http://ci.local:3420", host: "ci.local:3420" };
  assert.match(await begin(server, clear), /the page at https:\/\/ci\.example\.org .*sign in and act there/);
  assert.match(await begin(server), /^__Host-boatyard=/, "browsers keep it on loopback");
  await server.stop();
});

test("over a Unix socket the proxy's header says who it is: they see, and those in trust_steer steer", async () => {
  const dir = await pageYard({
    status: ", trust_header: X-Remote-User, trust_steer: [ada]",
    top: "url: http://ci.local",
  });
  const config = join(dir, "hooks.yml");
  const socketPath = join(dir, "page.sock");
  await writeFile(config, readFileSync(config, "utf8").replace(/^listen:.*$/m, `listen: unix:${socketPath}`));
  const running = startScript("hook-server", ["--config", config]);
  await running.until(/listens on unix:/);
  const as = (name?: string) => (name === undefined ? {} : { "x-remote-user": name });
  const at = (path: string, name?: string) => http({ socketPath }, path, { headers: as(name) });
  assert.is((await at("/")).status, 401);
  assert.is((await at("/", "bob")).status, 200);
  const body = JSON.stringify(pushPayload("me/site", sha(1)));
  const signed = { "x-github-event": "push", "x-github-delivery": "1", "x-hub-signature-256": `sha256=${sign(body)}` };
  const { run } = (
    await http({ socketPath }, "/hook", { body, headers: { ...signed, "content-type": "application/json" } })
  ).body;
  const local = { socketPath: join(dir, "state", "socket") };
  await waitFor(async () => {
    const [{ state }] = (await http(local, "/runs")).body.runs;
    return !["waiting", "starting", "running"].includes(state);
  });
  const rerun = (name: string) =>
    http({ socketPath }, `/runs/${run}/rerun`, {
      method: "POST",
      headers: { ...as(name), host: "ci.local", origin: "http://ci.local" },
    });
  assert.is((await rerun("bob")).status, 403);
  assert.match(String((await rerun("ada")).status), /^(202|303)$/);
  assert.is((await running.stop()).code, 0);
});

test("a request whose connection is gone before it is read comes from nobody, and not from the Unix socket", async () => {
  const server = await startHooks(
    await pageYard({
      status: ", trust_header: X-Remote-User, trust_steer: [ada]",
    }),
  );
  const { body } = await server.push("me/site", sha(1));
  await server.idle();
  const host = `127.0.0.1:${server.port}`;
  // the server sleeps while somebody sends, and resets the connection
  server.running.kill("SIGSTOP");
  const socket = connect(server.port, "127.0.0.1");
  await once(socket, "connect");
  const text = `POST /runs/${body.run}/rerun HTTP/1.1\r\nHost: ${host}\r\nOrigin: http://${host}\r\nX-Remote-User: ada\r\nContent-Length: 0\r\n\r\n`;
  await new Promise<void>((done) => socket.write(text, () => done()));
  socket.resetAndDestroy();
  await once(socket, "close");
  server.running.kill("SIGCONT");
  // what comes later is accepted later
  await server.push("me/site", sha(2));
  assert.is((await server.idle()).length, 2, server.running.output());
  await server.stop();
});

test("a push that takes the place of one that waits is told to those who look", async () => {
  const server = await startHooks(await pageYard({ job: "until test -e go; do sleep 0.05; done" }));
  const cookie = await signIn(server);
  await server.push("me/site", sha(1));
  await waitFor(async () => (await server.runs())[0]?.state === "running");
  const { body } = await server.push("me/site", sha(2));
  assert.match((await get(server, `/runs/${body.run}`, cookie)).text, "Waits behind");
  const live = follow(server, "/live", { cookie });
  await waitFor(() => live.text.includes("event: hello"));
  await server.push("me/site", sha(3));
  await waitFor(() => live.text.includes("event: change"), { timeout: 5000 });
  assert.match((await get(server, "/repos/me/site", cookie)).text, "superseded");
  assert.match((await get(server, `/runs/${body.run}`, cookie)).text, "Superseded by");
  live.close();
  await writeFile(join(server.dir, "co/go"), "");
  await server.idle();
  await server.stop();
});

test("sign-out and a changed password end the session everywhere, with its open streams; a restart does not", async () => {
  const dir = await pageYard({ job: "sleep 600" });
  let server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  await waitFor(async () => (await server.runs())[0]?.state === "running");
  const [cookie, other] = [await signIn(server), await signIn(server)];
  assert.not.match(readFileSync(join(server.state, "sessions.json"), "utf8"), cookie.split("=")[1] ?? "?");
  const live = `/runs/${body.run}/log?follow=1`;
  const streams = [follow(server, live, { cookie }), follow(server, "/live", { cookie })];
  const kept = follow(server, "/live", { cookie: other });
  await waitFor(() => [...streams, kept].every(({ text }) => text !== ""));
  assert.is((await post(server, "/sign-out", { cookie })).status, 303);
  await waitFor(() => streams.every(({ isOver }) => isOver));
  assert.is((await get(server, "/", cookie)).status, 401);
  assert.not(kept.isOver);
  await http({ socketPath: join(server.state, "socket") }, `/runs/${body.run}/cancel`, {
    method: "POST",
  });
  await server.idle();
  await server.stop();
  server = await startHooks(dir);
  assert.is((await get(server, "/", other)).status, 200, "a session outlives a restart");
  const watched = follow(server, "/live", { cookie: other });
  await waitFor(() => watched.text !== "");
  // in one step, as it is longer than the former one: a file that is emptied first may be read while it is empty
  await writeFile(join(dir, "pw"), "another password\n", { flag: "r+" });
  await chmod(join(dir, "pw"), 0o600);
  await waitFor(() => watched.isOver);
  assert.is((await get(server, "/", other)).status, 401);
  await server.stop();
});

test("a wrong password is answered late; who has the right one or a token does not wait for it", async () => {
  const server = await startHooks(await pageYard());
  const begin = Date.now();
  const guess = post(server, "/sign-in", { body: "secret=wrong" });
  const token = { authorization: "Bearer token-of-the-programs" };
  for (let n = 0; n < 3; n++) assert.is((await http(server, "/runs", { headers: token })).status, 200);
  assert.match(await signIn(server), /^boatyard=/);
  assert.is((await guess).status, 403);
  assert.ok(Date.now() - begin >= 1900);
  await server.stop();
});

test("a public repo can be seen by anybody and steered by nobody; a proxy's header is not believed over TCP", async () => {
  const dir = await pageYard({
    repos: { "me/open": "public: true", "me/closed": "" },
    status: ", trust_header: X-Remote-User, trust_steer: [ada]",
  });
  const server = await startHooks(dir);
  const open = (await server.push("me/open", sha(1))).body.run;
  const closed = (await server.push("me/closed", sha(2))).body.run;
  await server.idle();
  const overview = await get(server, "/");
  assert.match(overview.text, "me/open".replace("me/", ""));
  assert.not.match(overview.text, "closed");
  assert.is((await get(server, `/runs/${open}/log`)).status, 200);
  assert.match((await get(server, "/repos/me/open/badge.svg")).text, "passing");
  assert.is((await get(server, `/runs/${closed}`)).status, 401);
  assert.is((await get(server, "/repos/me/closed/badge.svg")).status, 404);
  assert.is((await post(server, `/runs/${open}/rerun`)).status, 401);
  // nor is a stranger told when something happens elsewhere
  const revision = async () => {
    const live = follow(server, "/live", {});
    await waitFor(() => live.text.includes("data: "));
    live.close();
    return live.text;
  };
  const before = await revision();
  await server.push("me/closed", sha(3));
  await server.idle();
  assert.is(await revision(), before);
  await server.push("me/open", sha(4));
  await server.idle();
  assert.is.not(await revision(), before);
  assert.is((await http(server, "/live", { method: "HEAD" })).status, 200);
  // a build can reach this address, too
  const told = (name: string) => ({ "x-remote-user": name });
  assert.is((await get(server, `/runs/${closed}`, "", told("ada"))).status, 401);
  await server.stop();
});

test("those who look, however many and whoever they are, leave room for deliveries", async () => {
  const server = await startHooks(await pageYard({ job: "until test -e go; do sleep 0.05; done" }));
  const { body } = await server.push("me/site", sha(1));
  await waitFor(async () => (await server.runs())[0]?.state === "running");
  const sockets = Array.from({ length: 600 }, () => connect(server.port, "127.0.0.1"));
  // all at once: a connection on which nothing is asked for some seconds is closed
  const token = "authorization: Bearer token-of-a-guest-who-sees";
  const answers = sockets.map((socket) => {
    socket.on("error", () => {});
    socket.write(`GET /runs/${body.run}/log?follow=1 HTTP/1.1\r\nhost: localhost\r\n${token}\r\n\r\n`);
    return once(socket, "data");
  });
  for (const [data] of await Promise.all(answers)) assert.match(String(data), /^HTTP\/1.1 200 /);
  const headers = { authorization: "Bearer token-of-a-guest-who-sees" };
  const more = await http(server, `/runs/${body.run}/log?follow=1`, { headers });
  assert.equal([more.status, more.headers["retry-after"]], [503, "60"]);
  assert.is((await server.push("me/site", sha(2))).status, 202);
  for (const socket of sockets) socket.destroy();
  await waitFor(async () => (await http(server, "/runs", { headers })).status === 200);
  await writeFile(join(server.dir, "co/go"), "");
  await server.idle();
  await server.stop();
});

test("a token that is taken away ends what it reads", async () => {
  const dir = await pageYard({ job: "sleep 600" });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  await waitFor(async () => (await server.runs())[0]?.state === "running");
  const headers = { authorization: "Bearer token-of-a-guest-who-sees" };
  const stream = follow(server, `/runs/${body.run}/log?follow=1`, headers);
  await waitFor(() => stream.text !== "");
  const config = join(dir, "hooks.yml");
  const text = readFileSync(config, "utf8");
  await writeFile(config, text.replace(", tokens: { guest: { token_file: guest } }", ""));
  await waitFor(() => stream.isOver);
  assert.is((await http(server, "/runs", { headers })).status, 401);
  await server.local(`/runs/${body.run}/cancel`, "POST");
  await server.idle();
  await server.stop();
});

test("text is compressed, what a browser has already is not sent again, and no two names look the same", async () => {
  const cookie = await signIn(shared);
  const gzipped = await get(shared, `/runs/${ended}`, cookie, { "accept-encoding": "gzip" });
  assert.is(gzipped.headers["content-encoding"], "gzip");
  const plain = await get(shared, `/runs/${ended}`, cookie);
  assert.ok(Number(gzipped.headers["content-length"]) < Number(plain.headers["content-length"]) / 2);
  const path = `/runs/${ended}/lines?from=0&count=9`;
  const { etag } = (await get(shared, path, cookie)).headers;
  assert.is((await get(shared, path, cookie, { "if-none-match": String(etag) })).status, 304);
  const name = await get(shared, "/?q=x\u009b31m".replace("\u009b", encodeURIComponent("\u009b")), cookie);
  assert.match(name.text, 'value="x<9b>31m"'.replace("<9b>", "&lt;9b&gt;"));
});

test("no place in a live log that is asked for gives a part of a secret", async () => {
  const server = await startHooks(
    await pageYard({
      job: 'echo "the key is $(cat ../secret)."; until test -e go; do sleep 0.05; done',
    }),
  );
  const { body } = await server.push("me/site", sha(1));
  const cookie = await signIn(server);
  const path = `/runs/${body.run}/log?follow=1`;
  const whole = follow(server, path, { cookie });
  await waitFor(() => linesOf(whole.text).length > 0);
  assert.equal(linesOf(whole.text), ["the key is ***."]);
  const [file] = lastId(whole.text).split("-");
  const parts = [12, 20, 30].map((at) => follow(server, `${path}&at=${file}-${at}`, { cookie }));
  await waitFor(() => parts.every(({ text }) => linesOf(text).length > 0));
  for (const { text } of parts) assert.equal(linesOf(text), ["the key is ***."]);
  for (const each of parts) each.close();
  await writeFile(join(server.dir, "co/go"), "");
  await server.idle();
  await waitFor(() => whole.text.includes("event: end"));
  assert.match(linesOf(whole.text)[1] ?? "", / hook-server \| succeeded /, "although it was masked since");
  whole.close();
  await server.stop();
});

test("a search sees the text, not its colours, and small letters for capitals unless asked", async () => {
  const cookie = await signIn(shared);
  const ask = async (what: string) => (await get(shared, `/runs/${ended}/${what}`, cookie)).body;
  assert.equal(await ask("search?q=All%20red%20words"), { lines: [1], count: 1 });
  assert.equal(await ask("search?q=All%20red%20words&case=1"), { lines: [], count: 0 });
  assert.is((await ask("lines?folds=1")).error, undefined, "it went well");
});

test("a live log goes on where it was after cut connections and a restart of the server: nothing is missing or doubled", async () => {
  const dir = await pageYard({
    job: 'for i in $(seq 1 2000); do echo "line $i"; test $((i % 100)) = 0 && sleep 0.05; done; until test -e go; do sleep 0.05; done; echo the end',
  });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  const cookie = await signIn(server);
  const seen: string[] = [];
  let id = "";
  const path = () => `/runs/${body.run}/log?follow=1${id === "" ? "" : `&at=${id}`}`;
  for (let cut = 0; seen.at(-1) !== "line 2000"; cut++) {
    // each connection brings one line at least
    assert.ok(cut < 2000, `only ${seen.length} lines`);
    const stream = follow(server, path(), { cookie });
    await waitFor(() => /^id: .+\n(?:data: .*\n)+\n/m.test(stream.text) || stream.isOver);
    stream.close();
    // what came whole counts, as in a browser
    const whole = stream.text.slice(0, stream.text.lastIndexOf("\n\n") + 2);
    seen.push(...linesOf(whole));
    id = lastId(whole) || id;
  }
  assert.equal(
    seen,
    Array.from({ length: 2000 }, (_, n) => `line ${n + 1}`),
  );
  await server.kill();
  const next = await startHooks(dir);
  const stream = follow(next, `/runs/${body.run}/log?follow=1`, { cookie, "last-event-id": id });
  await writeFile(join(dir, "co/go"), "");
  await waitFor(() => stream.isOver);
  const rest = linesOf(stream.text);
  assert.is(rest[0]?.startsWith("line"), false, rest.slice(0, 3).join("\n"));
  assert.match(stream.text, /event: end\ndata: succeeded/);
  const foreign = follow(next, `/runs/${body.run}/log?follow=1&at=1-1`, { cookie });
  await waitFor(() => foreign.isOver);
  assert.match(foreign.text, "event: restart");
  const log = readFileSync(join(next.state, "runs", body.run, "log"), "utf8");
  const parts = (await get(next, `/runs/${body.run}/lines?from=0&count=2000`, cookie)).body;
  assert.equal(parts.lines, log.split("\n").slice(0, 2000));
  await next.idle();
  await next.stop();
});

test.run();

// What a front door on the internet sees: real payloads of every kind, and requests of no kind.
import { connect } from "node:net";
import { createRequire } from "node:module";
import process from "node:process";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { fuzz } from "../helpers/hook-fuzz.ts";
import { http, makeYard, secret, sign, startHooks } from "../helpers/hooks.ts";

type Example = { name: string; examples: Record<string, unknown>[] };

test("of all payloads that GitHub documents only a published release and a push run", async () => {
  const examples = createRequire(import.meta.url)("@octokit/webhooks-examples/api.github.com/index.json") as Example[];
  const repo = "Codertocat/Hello-World";
  const server = await startHooks(await makeYard({ repos: { [repo]: "refs: ['*', 'refs/tags/*']" } }));
  let sent = 0;
  for (const { name, examples: payloads } of examples) {
    for (const payload of payloads) {
      sent += 1;
      const { status, body } = await server.send({ event: name, payload });
      assert.ok(status < 500, `${name}: ${status}`);
      const repository = (payload as { repository?: { full_name?: string } }).repository?.full_name;
      const mayRun =
        repository === repo &&
        ((name === "push" && !payload.deleted) || (name === "release" && payload.action === "published"));
      assert.is(status === 202, mayRun, `${name} ${String(payload.action)}: ${status} ${JSON.stringify(body)}`);
    }
  }
  assert.ok(sent > 200, `${sent} payloads`);
  await server.idle();
  await server.stop();
});

test("fuzzed requests crash nothing, are never a 5xx, and start no run", async () => {
  const server = await startHooks(await makeYard());
  const statuses = await fuzz(server, 400, Number(process.env["FUZZ_SEED"] ?? 1));
  for (const status of statuses.keys()) assert.ok(status < 500, `${status}`);
  assert.ok((statuses.get(401) ?? 0) > 0 && (statuses.get(400) ?? 0) > 0);
  assert.equal(await server.runs(), []);
  assert.is((await http({ port: server.port }, "/healthz")).status, 200);
  assert.not.match(server.running.output(), /bug:/);
  assert.not.match(server.running.output(), secret);
  await server.stop();
});

test("a body is looked into only after its signature was found good", async () => {
  const server = await startHooks(await makeYard());
  for (const raw of ["{not json", "", "[".repeat(100_000)]) {
    assert.is((await server.send({ raw })).status, 400);
    assert.is((await server.send({ raw, key: "wrong" })).status, 401);
    assert.is((await server.send({ raw, key: null })).status, 401);
  }
  await server.stop();
});

test("who sends headers or a body too slowly is cut off in time", async () => {
  const server = await startHooks(await makeYard());
  const heads = [
    "POST /hook HTTP/1.1\r\nhost: x\r\n",
    `POST /hook HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-github-event: push\r\nx-hub-signature-256: sha256=${sign("")}\r\ncontent-length: 100\r\n\r\n{`,
  ];
  const answers = await Promise.all(
    heads.map(
      (head) =>
        new Promise<string>((resolve) => {
          const socket = connect(server.port, "127.0.0.1");
          let text = "";
          const timer = setInterval(() => socket.write("x"), 500);
          socket.on("error", () => {});
          socket.on("data", (data: Buffer) => {
            text += data.toString();
          });
          socket.on("close", () => {
            clearInterval(timer);
            resolve(text);
          });
          socket.write(head);
        }),
    ),
  );
  assert.match(answers[1] ?? "", /^HTTP\/1\.1 408 /);
  await server.stop();
});

test.run();

import { spawn } from "node:child_process";
import { closeSync, openSync, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { request, type ServerResponse } from "node:http";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createMask, type Mask } from "../../../../lib/core/mask.ts";
import { followLog } from "../../../../lib/hook/runs/follow.ts";
import { sealLog, sendLog } from "../../../../lib/hook/runs/run-log.ts";
import { createHttpServer, listenOn } from "../../../../lib/http/server.ts";
import { http } from "../../../helpers/hooks.ts";
import { tempDir } from "../../../helpers/tmp.ts";
import { waitFor } from "../../../helpers/wait.ts";

test("a secret is masked wherever in a line without an end it stands", async () => {
  const secret = "planted-5ecret-of-the-forge";
  const path = join(tempDir(), "log");
  // wherever such a line is cut to keep memory bounded
  const gap = 1024;
  const line = `${secret}${"x".repeat(gap - secret.length)}`.repeat(400);
  for (let shift = 0; shift < gap; shift += 16) {
    await writeFile(path, `${"y".repeat(shift)}${line}`);
    const response = Object.assign(new PassThrough(), { writeHead() {} });
    const shown = text(response);
    await sendLog(response as unknown as ServerResponse, path, {
      mask: createMask([secret]),
      growing: false,
    });
    assert.not((await shown).includes("forge"), `shifted by ${shift}`);
  }
});

test("a log that something left behind grows again and again costs its end no more than max_log", async () => {
  const path = join(tempDir(), "log");
  const max = 100_000;
  await writeFile(path, "built\n");
  const fd = openSync(path, "a");
  const grow = "for (;;) require('node:fs').ftruncateSync(1, 2 ** 36)";
  const left = spawn("node", ["-e", grow], { stdio: ["ignore", fd, "ignore"] });
  closeSync(fd);
  let searched = 0;
  const mask = createMask(["planted-5ecret-of-the-forge"]);
  const counting = Object.assign((text: string) => mask(text), {
    spans: (text: string) => {
      searched += text.length;
      if (searched > 50 * max) throw new Error("all of it is searched");
      return mask.spans(text);
    },
  });
  try {
    await waitFor(() => statSync(path).size > max);
    await sealLog(path, { max, mask: counting, id: "run", text: "succeeded" });
  } finally {
    left.kill("SIGKILL");
  }
});

/** A server that lets its clients follow a log. */
async function following(log: Buffer, mask: Mask, before = async (_response: ServerResponse) => {}) {
  const path = join(tempDir(), "log");
  await writeFile(path, log);
  const ended: unknown[] = [];
  const server = createHttpServer(
    async (request, response) => {
      await before(response);
      await followLog(request, response, {
        path: () => path,
        mask: () => mask,
        endState: () => "failed",
      });
      ended.push(response);
    },
    (error) => {
      throw error;
    },
  );
  const socketPath = join(tempDir(), "socket");
  await listenOn(server, { path: socketPath });
  return { server, socketPath, ended };
}

/** What those see who follow a log that has ended, one after the other. */
async function followed(log: Buffer, secret: string): Promise<string[]> {
  const { server, socketPath } = await following(log, createMask([secret]));
  const answers = await Promise.all([1, 2].map(() => http({ socketPath }, "/")));
  server.close();
  return answers.map(({ text }) => {
    assert.match(text, /event: end\ndata: failed\n\n$/);
    const data = text.split("\n").filter((line) => line.startsWith("data: "));
    return data.map((line) => line.slice("data: ".length)).join("");
  });
}

test("who has gone before the log is opened is not served", async () => {
  const gone = (response: ServerResponse) =>
    new Promise<void>((resolve) => {
      response.once("close", resolve);
      response.socket?.destroy();
    });
  const { server, socketPath, ended } = await following(Buffer.from("a\n"), createMask([]), gone);
  const call = request({ socketPath, path: "/" });
  call.on("error", () => {});
  call.end();
  await waitFor(() => ended.length === 1);
  server.close();
});

test("who follows a log gets all of a line without an end, whatever bytes it is of, and no part of a secret", async () => {
  const secret = "planted-5écret-of-the-forge";
  // text is cut at 256 KiB less a tail, here within the secret
  const before = 256 * 1024 - 4096 - 10;
  const rest = Buffer.alloc(300 * 1024, "z");
  for (const filler of [Buffer.alloc(before, 0xff), Buffer.alloc(before, "y"), Buffer.alloc(before, "é")]) {
    const log = Buffer.concat([filler, Buffer.from(secret), rest, Buffer.from("\nlast words\n")]);
    for (const shown of await followed(log, secret)) {
      assert.not.match(shown, /planted|forge/);
      assert.is(
        shown.length,
        filler.toString().length + 3 + rest.length + "last words".length + "failed".length,
        shown.slice(-60),
      );
    }
  }
});

test.run();

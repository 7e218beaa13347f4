// Messages and commit statuses survive a kill before each step of telling them; a repeat can be told from another message.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { startForge } from "../helpers/forges.ts";
import { makeYard, sha, startHooks, untold } from "../helpers/hooks.ts";
import { closeReceivers, startReceiver } from "../helpers/receiver.ts";
import { runCommand } from "../helpers/run.ts";
import { current } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { killAtEachStep, needsCompiler, runSteps } from "../helpers/steps.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

test.after(closeReceivers);

const scale = Number(process.env["SOAK_SCALE"] ?? 1);

const program = fileURLToPath(new URL("../helpers/tell-notice.ts", import.meta.url));

testUnless(test, needsCompiler)(
  "a kill before any step of telling loses no message, and doubles none but what was on its way",
  async () => {
    const server = await startReceiver();
    let before = 0;
    let argv: string[] = [];
    const steps = await killAtEachStep(
      async () => {
        before = server.received.length;
        const folder = tempDir();
        argv = [...current.argv(program), folder, server.url];
        return { argv, folder };
      },
      async ({ folder }) => {
        // the caller tells it again, as its own record says that it is still to be told
        await runCommand(argv, { expect: 0 });
        const got = server.received.slice(before);
        assert.ok(got.length >= 1 && got.length <= 2, `${got.length} messages`);
        assert.is(new Set(got.map(({ headers }) => headers["idempotency-key"])).size, 1);
        assert.equal(await readdir(join(folder, "outbox")), []);
        const subjects = JSON.parse(await readFile(join(folder, "subjects.json"), "utf8"));
        assert.is(subjects["me/site main"].failures, 1);
      },
    );
    assert.ok(
      steps.some((step) => step.startsWith("rename")),
      steps.join("\n"),
    );
  },
);

testUnless(test, needsCompiler)(
  "a commit ends with its run's status, whichever step of hook-server a kill comes before, although the forge's answers are lost",
  async () => {
    // each second answer is lost, after the forge has taken the status
    let count = 0;
    const forge = await startForge("gitlab", () => (count++ % 2 === 0 ? "cut after" : undefined));
    const program = fileURLToPath(new URL("../helpers/push-once.ts", import.meta.url));
    const stride = Math.max(1, Math.round(1 / scale));
    let sawEnd = false;
    let last: string[] = [];
    for (let kill = 1; !sawEnd; kill += stride) {
      const dir = await makeYard({
        top: `forge: { git.example.com: { kind: gitlab, api: "${forge.api}", token_file: token } }`,
        repos: { "me/site": "" },
        job: "echo built",
      });
      await writeFile(join(dir, "token"), `${forge.token}\n`, { mode: 0o600 });
      const argv = current.argv(program).concat(dir);
      const { result, steps } = await runSteps(argv, join(dir, "state"), { kill, timeout: 60_000 });
      sawEnd = result.code === 0;
      last = steps;
      const step = `step ${kill}, ${steps.at(-1)?.replaceAll(dir, "")}`;
      if (!sawEnd) assert.is(result.signal, "SIGKILL", `${step}: ${result.stderr}`);
      const server = await startHooks(dir);
      // a forge sends again what was not answered
      await server.push("me/site", sha(1), { id: "delivery-1" });
      const [run, ...more] = await server.idle();
      await waitFor(() => !untold(server), { what: () => `${step}\n${server.running.output()}` });
      await server.stop();
      assert.equal(more, [], `${step}: it ran twice`);
      const end = { succeeded: "success", failed: "failed" }[`${run?.state}`];
      const history = forge.history(sha(1), "boatyard/push");
      assert.is(history.at(-1), end, `${step}: ${run?.state}, and the forge has ${history}`);
      const ends = history.slice(history.indexOf(end ?? ""));
      assert.equal([...new Set(ends)], [end], `${step}: ${history}`);
      // once more than it was told for each of the answers that were lost, and for the kill
      assert.ok(ends.length <= 3, `${step}: ${history}`);
      forge.forget();
    }
    const records = last.filter((step) => /^rename .*run\.json$/.test(step));
    assert.ok(records.length >= 3, `the record is written with its end, and when it was told:\n${last.join("\n")}`);
  },
);

test.run();

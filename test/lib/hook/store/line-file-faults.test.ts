// The file of accepted deliveries when calls of the system fail, and when its process is killed at one of them.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { LineFile } from "../../../../lib/hook/store/line-file.ts";
import { current, root } from "../../../helpers/runtime.ts";
import { testUnless } from "../../../helpers/skip.ts";
import { needsStrace } from "../../../helpers/strace.ts";
import { tempDir } from "../../../helpers/tmp.ts";

const writes = "write,pwrite64,writev,pwritev,pwritev2";
const syncs = "fsync,fdatasync";
const renames = "rename,renameat,renameat2";

/** Write lines while faults are injected into calls on the file, on the new one beside it, or on its folder. */
function write(faults: string[], where: "" | ".new" | "folder"): { path: string; output: string } {
  const path = join(tempDir(), "deliveries.jsonl");
  const on = where === "folder" ? dirname(path) : `${path}${where}`;
  const calls = faults.map((fault) => fault.split(":")[0]).join(",");
  const { stdout } = spawnSync(
    "strace",
    [
      ...["-f", "-qq", "-o", "/dev/null", "-P", on, "-e", `trace=${calls}`],
      ...faults.flatMap((fault) => ["-e", `inject=${fault}`]),
      ...current.argv(join(root, "test/helpers/line-file-writer.ts")),
      ...[path, "90"],
    ],
    // strace counts per thread
    { env: { ...process.env, UV_THREADPOOL_SIZE: "1" }, encoding: "utf8", timeout: 120_000 },
  );
  return { path, output: stdout };
}

const numbers = (output: string, what: string) =>
  [...output.matchAll(new RegExp(`^${what} (\\d+)$`, "gm"))].map((match) => Number(match[1]));

/** What is in the file: all lines ever, as far as they are in use. */
async function check(path: string, output: string, { isKilled = false } = {}): Promise<void> {
  const said: string[] = [];
  const warn = (text: string) => said.push(text);
  const { file, lines } = await LineFile.open(path, {
    isNew: false,
    warn,
    kept: () => ({ places: [], heads: [] }),
  });
  await file.close();
  const found = new Set(lines.map(({ head }) => head["n"]));
  // of those that are not in use a rewrite keeps none
  const lost = numbers(output, "stored").filter((n) => n % 5 === 0 && !found.has(n));
  assert.equal(lost, [], `lost; ${output}`);
  if (isKilled) return;
  const ghosts = numbers(output, "refused").filter((n) => found.has(n));
  assert.equal(ghosts, [], "refused, and there");
  assert.equal(said, []);
}

testUnless(test, needsStrace)(
  "when a write, a sync or a cut fails, all that waited is refused and nothing of it is found later; what was stored is there",
  async () => {
    const table: [string, "" | ".new" | "folder", RegExp][] = [
      [`${writes}:error=EIO:when=5..6`, "", /^refused/m],
      [`${writes}:error=ENOSPC:when=4..6 ftruncate:error=EIO:when=2..3`, "", /^refused/m],
      // nor can it be opened anew, at first
      [`${writes}:error=EIO:when=6 ${syncs}:error=EIO:when=2`, "", /^refused/m],
      // a rewrite that fails harms nobody
      [`${writes}:error=ENOSPC:when=2`, ".new", /is not rewritten now: ENOSPC/],
      [`${syncs}:error=EIO:when=1`, ".new", /is not rewritten now: EIO/],
      [`${renames}:error=EIO:when=1`, ".new", /is not rewritten now: EIO/],
      // the new name is not on disk: nothing is answered before it is
      [`${syncs}:error=EIO:when=3..4`, "folder", /^refused/m],
    ];
    for (const [faults, where, met] of table) {
      const { path, output } = write(faults.split(" "), where);
      assert.match(output, /^done$/m, `${faults}: ${output}`);
      if (current.kind === "node") assert.match(output, met, faults);
      await check(path, output);
    }
  },
);

testUnless(test, needsStrace)(
  "killed at a write, at a sync, at any step of a rewrite: what was stored is there",
  async () => {
    const table: [string, "" | ".new" | "folder"][] = [
      [`${writes}:signal=KILL:when=6`, ""],
      [`${writes}:error=EIO:when=6 ${syncs}:signal=KILL:when=2`, ""],
      [`${writes}:signal=KILL:when=2`, ".new"],
      [`${syncs}:signal=KILL:when=2`, ".new"],
      [`${renames}:signal=KILL:when=1`, ".new"],
      [`${syncs}:signal=KILL:when=3`, "folder"],
    ];
    for (const [fault, where] of table) {
      const { path, output } = write(fault.split(" "), where);
      if (current.kind === "node") assert.not.match(output, /^done$/m, fault);
      assert.ok(readFileSync(path).length > 0);
      await check(path, output, { isKilled: true });
    }
  },
);

test.run();

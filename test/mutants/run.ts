// Breaks the product in one place after another, and tells which breaks no test notices.
//   npm run mutants                 all of test/mutants/table.ts: about an hour
//   npm run mutants -- store VERSION  those whose words, file or tests contain one of these texts
// Works on a copy in .cache/mutants. Exits with 1 when one survives, or is no longer found.
import { execFile, spawn } from "node:child_process";
import { cp, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { root } from "../helpers/runtime.ts";
import type { Mutation } from "./mutation.ts";
import { mutations } from "./table.ts";

const copy = join(root, ".cache/mutants");
const wanted = process.argv.slice(2);
const chosen = mutations.filter(({ what, file, tests }) => {
  const words = [what, file, ...tests].join(" ");
  return wanted.length === 0 || wanted.some((each) => words.includes(each));
});

await makeCopy();
const survivors: string[] = [];
for (const [index, mutation] of chosen.entries()) {
  const started = Date.now();
  const result = await tryOut(mutation);
  if (result !== "noticed") survivors.push(`${mutation.file}: ${mutation.what}: ${result}`);
  const seconds = ((Date.now() - started) / 1000).toFixed(0).padStart(4);
  console.log(`${String(index + 1).padStart(3)} ${seconds} s  ${result.padEnd(9)} ${mutation.what}`);
}
await rm(copy, { recursive: true, force: true });
for (const each of survivors) console.log(each);
console.log(`${chosen.length - survivors.length} of ${chosen.length} mutations were noticed`);
process.exitCode = survivors.length > 0 ? 1 : 0;

/** All files that git knows or would take, beside the packages of the checkout itself. */
async function makeCopy(): Promise<void> {
  await rm(copy, { recursive: true, force: true });
  const list = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
  const { stdout } = await promisify(execFile)("git", list, { cwd: root, maxBuffer: 1e8 });
  for (const file of stdout.split("\0").slice(0, -1)) {
    await mkdir(dirname(join(copy, file)), { recursive: true });
    await cp(join(root, file), join(copy, file), { verbatimSymlinks: true }).catch((error) => {
      if (error.code !== "ENOENT") throw error; // removed, and not yet committed
    });
  }
  await symlink(join(root, "node_modules"), join(copy, "node_modules"));
}

/** One mutation: made, tested, taken back. */
async function tryOut({ file, from, to, tests }: Mutation): Promise<string> {
  const path = join(copy, file);
  const text = await readFile(path, "utf8").catch(() => "");
  if (text.split(from).length !== 2) return "not found once in the file; correct the table";
  await writeFile(
    path,
    text.replace(from, () => to),
  );
  try {
    // unit tests read the sources
    const dist = tests.every((each) => each.startsWith("lib/")) ? [] : ["--dist"];
    if (dist.length > 0 && (await run(["tools/bundle.ts"])) !== 0) return "does not bundle; correct the table";
    // a mutation may make a test hang, which notices it as well
    const limit = ["--limit", dist.length > 0 ? "300" : "60"];
    for (const each of tests) if ((await run(["test/run.ts", ...dist, ...limit, each])) !== 0) return "noticed";
    return "survived";
  } finally {
    await writeFile(path, text);
  }
}

async function run(args: string[]): Promise<number | null> {
  const child = spawn(process.execPath, ["--import", "tsx", ...args], {
    cwd: copy,
    stdio: "ignore",
  });
  return await new Promise((resolve) => child.on("exit", resolve));
}

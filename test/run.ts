// Runs the test files, each in a process of its own, and does not trust them: no tests at all, a
// file that ran none, a hang, a process or file left behind, a skip without a reason all fail.
//   node --import tsx test/run.ts [--runtime node|deno|PATH] [--dist] [--soak] [--jobs N]
//                                 [--limit SECONDS] [--in FOLDER] [--across-runtimes] [--all] [--second-try] [PATTERN …]
// --all: those of test/long.ts, too; so is it with --across-runtimes and with a pattern.
// --across-runtimes: only the files of test/across-runtimes.ts.
// --second-try: what failed beside others runs once more, alone; what passes then is listed and counted as unsteady. It
// does not fail this run, but that of .ci/run.
import { spawn } from "node:child_process";
import { statSync } from "node:fs";
import { chmod, copyFile, mkdir, mkdtemp, readdir, rm, symlink } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { basename, join, relative } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs, stripVTControlCharacters } from "node:util";
import { acrossRuntimes } from "./across-runtimes.ts";
import { compileTests } from "./compile.ts";
import { long } from "./long.ts";
import { killProcessesOf, processesOf } from "./helpers/leftovers.ts";
import { type Runtime, root, runtimeOf } from "./helpers/runtime.ts";
import { removeTree } from "./helpers/tmp.ts";
import { slowness } from "./helpers/wait.ts";

type Outcome = {
  file: string;
  passed: number;
  failed: number;
  skips: string[];
  problems: string[];
  output: string;
  seconds: number;
};

const { values: flags, positionals: patterns } = parseArgs({
  allowPositionals: true,
  options: {
    runtime: { type: "string", default: "node" },
    dist: { type: "boolean", default: false },
    soak: { type: "boolean", default: false },
    jobs: { type: "string" },
    limit: { type: "string" },
    "across-runtimes": { type: "boolean", default: false },
    all: { type: "boolean", default: false },
    "second-try": { type: "boolean", default: false },
    in: { type: "string", default: join(root, "test") },
  },
});
/** One more than processors: files mostly wait, for processes, servers, conditions. */
const jobs = Number(flags.jobs ?? (flags.soak ? 1 : availableParallelism() + 1));
/** Milliseconds that a file may take. */
const limit = () => 1000 * Number(flags.limit ?? (flags.soak ? 900 : 300) * slowness(jobs));
/** Milliseconds in which a file must end by itself after its last test. */
const farewell = () => Math.min(10_000 * slowness(jobs), limit());

const suffix = flags.soak ? ".soak.ts" : ".test.ts";
const chosen = flags.all || flags["across-runtimes"] || patterns.length > 0;
const files = (await readdir(flags.in, { recursive: true }))
  .filter((file) => file.endsWith(suffix))
  .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
  .filter((file) => !flags["across-runtimes"] || acrossRuntimes.some((beginning) => file.startsWith(beginning)))
  .filter((file) => chosen || !(file.slice(0, -suffix.length) in long))
  .map((file) => join(relative(root, flags.in), file));
// What takes longest first: begun last it would end alone, on an idle machine. Of the others the size is a good guess.
const longest = [
  ...Object.keys(long),
  ...["lib/fleet/repo/activate", "scripts/hook-server-page", "scripts/launchfit-install", "scripts/launchfit-overlap"],
  ...["scripts/launchfit-run", "scripts/release-keys", "scripts/server-update", "scripts/slave-server"],
  ...["soak/build", "soak/docs", "soak/package", "soak/release-tool", "soak/setup-kill"],
];
const isLong = (file: string) => longest.some((name) => file.includes(`${name}.`));
const size = (file: string) => statSync(join(root, file)).size;
files.sort((a, b) => Number(isLong(b)) - Number(isLong(a)) || size(b) - size(a));
const runtime = await runtimeOf(await findRuntime(flags.runtime));
const from = flags.dist ? "the bundles" : "the sources";
console.log(`${files.length} files under ${runtime.kind} ${runtime.version}, ${from}`);

// What a runtime has compiled once, every file and every script it starts may use: tsx by its folder under TMPDIR, the
// others by a variable. Without it Node 24 strips the types of each source again at each start, which doubles its time.
// Deno keeps the packages there as well, so its cache stays for the next run.
const caches = await mkdtemp(join(tmpdir(), "by-"));
const compiled = join(caches, `tsx-${process.getuid?.()}`);
await mkdir(compiled);
const cacheVariables = {
  NODE_COMPILE_CACHE: join(caches, "node"),
  DENO_DIR: process.env["DENO_DIR"] ?? join(root, ".cache", "deno"),
};

// A test may load a developer's package, which Deno would add to deno.lock, with all others of package.json.
const ownLock = `--lock=${join(caches, "deno.lock")}`;
if (runtime.kind === "deno") await fetchPackages(runtime);
// Below the checkout, where the packages are found.
await mkdir(join(root, ".cache"), { recursive: true });
const compiledTests = await mkdtemp(join(root, ".cache", "tests-"));
process.on("exit", () => removeTree(compiledTests));
const compiledFiles = runtime.readsTypeScript ? new Map<string, string>() : await compileTests(files, compiledTests);

const outcomes: Outcome[] = [];
const waiting = [...files];
const started = Date.now();
const workers = Array.from({ length: jobs }, async () => {
  for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
    const outcome = await runFile(file, runtime);
    outcomes.push(outcome);
    report(outcome);
  }
});
await Promise.all(workers);
const unsteady: string[] = [];
if (flags["second-try"]) {
  for (const [index, { file, failed }] of outcomes.entries()) {
    if (!failed) continue;
    console.log(`again, alone: ${file}`);
    const outcome = await runFile(file, runtime);
    report(outcome);
    outcomes[index] = outcome;
    if (!outcome.failed) unsteady.push(file);
  }
}
await rm(caches, { recursive: true, force: true });

const sum = (pick: (outcome: Outcome) => number) => outcomes.reduce((total, outcome) => total + pick(outcome), 0);
const passed = sum((outcome) => outcome.passed);
const nothing = passed === 0 && outcomes.every((outcome) => outcome.failed === 0);
if (nothing) console.log("FAIL  no test ran");
const failed = sum((outcome) => outcome.failed) + (nothing ? 1 : 0);
const slowest = [...outcomes].sort((a, b) => b.seconds - a.seconds).slice(0, 10);
if (outcomes.length > 20)
  console.log(`slowest: ${slowest.map(({ file, seconds }) => `${basename(file)} ${seconds.toFixed(0)} s`).join(", ")}`);
const skips = outcomes.flatMap((outcome) => outcome.skips);
for (const line of sumOfSkips(skips)) console.log(line);
const bad = outcomes.filter((outcome) => outcome.failed).map(({ file }) => `  ${file}`);
if (bad.length) console.log(`failed:\n${bad.sort().join("\n")}`);
if (unsteady.length) console.log(`unsteady, passed alone:\n  ${unsteady.sort().join("\n  ")}`);
const sums = [`${passed} passed`, `${failed} failed`];
if (unsteady.length) sums.push(`${unsteady.length} unsteady`);
if (skips.length) sums.push(`${skips.length} skipped`);
console.log(`${((Date.now() - started) / 1000).toFixed(1)} s`);
console.log(sums.join(", "));
process.exitCode = failed ? 1 : 0;

/** How many tests were skipped for which reason, most first: "25 skipped: needs gpg". */
function sumOfSkips(skips: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const skip of skips) {
    // the test's own name stands before the reason
    const reason = skip.slice(skip.lastIndexOf(": ") + 2);
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  const sums = [...counts].sort((a, b) => b[1] - a[1]);
  return sums.map(([reason, count]) => `${count} skipped: ${reason}`);
}

/** `node` is the running one; `deno` may also stand where .ci/run puts it. */
async function findRuntime(name: string): Promise<string> {
  if (name === "node") return process.execPath;
  if (name !== "deno") return name;
  const cached = join(root, ".cache/runtimes/deno/node_modules/.bin/deno");
  return await runtimeOf(name).then(
    () => name,
    () => cached,
  );
}

async function runFile(file: string, runtime: Runtime): Promise<Outcome> {
  const begin = Date.now();
  // Short, since the path of a Unix socket is limited to 107 bytes.
  const folder = await mkdtemp(join(tmpdir(), "by-"));
  await chmod(folder, 0o755);
  await symlink(compiled, join(folder, basename(compiled)));
  const source = join(root, file);
  const [command = "", ...args] = runtime.argv(compiledFiles.get(file) ?? source);
  if (runtime.kind === "deno") args.splice(1, 0, ownLock);
  if (compiledFiles.has(file)) args.unshift("--enable-source-maps");
  const child = spawn(command, args, {
    cwd: root,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      ...cacheVariables,
      TMPDIR: folder,
      BOATYARD_TEST_RUNTIME: command,
      BOATYARD_TEST_JOBS: String(jobs),
      BOATYARD_TEST_DIST: flags.dist ? "1" : "",
    },
  });
  const problems: string[] = [];
  let output = "";
  /** Ended by us after a failed test, with what it had no time to remove. */
  let cut = false;
  const allowed = limit();
  let timer = setTimeout(() => end(`still running after ${allowed / 1000} s`), allowed);
  function end(problem: string): void {
    problems.push(problem);
    child.kill("SIGKILL");
  }
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      if (/^ {2}Duration: /m.test(text)) {
        clearTimeout(timer);
        // a test that failed may have left its servers open: that needs no second reason
        if (hasFailed(output)) return void (cut = child.kill("SIGKILL"));
        const problem = "did not end after its last test: something is still open";
        timer = setTimeout(() => end(problem), farewell());
      }
    });
  }
  const code = await new Promise<string>((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("exit", (code, signal) => resolve(signal ?? String(code)));
  });
  clearTimeout(timer);
  const left = await tidy(folder);
  if (!cut) problems.push(...left);
  await sleep(10); // the last output
  return judge(file, stripVTControlCharacters(output), code, problems, Date.now() - begin);
}

/** Deno fetches the packages now: later it would say so among what a test looks at. */
async function fetchPackages({ argv }: Runtime): Promise<void> {
  const [deno = ""] = argv("");
  const scripts = (await readdir(join(root, "scripts"))).filter((name) => name.endsWith(".ts"));
  const fetched = [...scripts.map((name) => join("scripts", name)), ...files];
  await copyFile(join(root, "deno.lock"), join(caches, "deno.lock"));
  const child = spawn(deno, ["cache", "--quiet", ownLock, ...fetched], {
    cwd: root,
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, ...cacheVariables },
  });
  await new Promise((resolve) => child.on("exit", resolve));
}

/** Whether uvu's sums at the end of a file's output tell of a test that failed. */
function hasFailed(output: string): boolean {
  const plain = stripVTControlCharacters(output);
  const [, total, passed] = /^ {2}Total: +(\d+)\s+Passed: +(\d+)/m.exec(plain) ?? [];
  return total !== passed;
}

/** Removes what a file left behind, and tells. */
async function tidy(folder: string): Promise<string[]> {
  const problems: string[] = [];
  let left = await processesOf(folder);
  for (let wait = 0; left.length && wait < 20 * slowness(jobs); wait++) {
    await sleep(100); // a process that is ending is not left behind
    left = await processesOf(folder);
  }
  for (const { pid, command } of left) problems.push(`left process ${pid} running: ${command}`);
  await killProcessesOf(folder);
  for (const name of await readdir(folder)) {
    // Caches of the runtimes themselves: tsx, Node's compile cache, npm.
    if (/^(tsx-|node-compile-cache|node-jiti|npm-|deno)/.test(name)) continue;
    problems.push(`left ${join(folder, name)} behind: make it with tempDir()`);
  }
  removeTree(folder);
  return problems;
}

function judge(file: string, output: string, code: string, problems: string[], ms: number): Outcome {
  const figure = (name: string) => Number(new RegExp(`^  ${name}: +(\\d+)`, "m").exec(output)?.[1]);
  const [total, passed, skipped] = ["Total", "Passed", "Skipped"].map(figure) as [number, number, number];
  const skips = [...output.matchAll(/^SKIP (.*)$/gm)].map((match) => match[1] ?? "");
  if (Number.isNaN(total)) problems.push(`no result (exit ${code}): is test.run() missing?`);
  else if (total + skipped === 0) problems.push("no test ran");
  else if (skipped > skips.length) {
    problems.push("skipped tests without a reason (a .only left in? use testUnless)");
  }
  // uvu counts the tests of a suite whose before hook failed, but calls none of them failed.
  const failed = (total || 0) - (passed || 0);
  if (code !== "0" && !failed && problems.length === 0) problems.push(`exit ${code}`);
  return {
    file,
    passed: passed || 0,
    failed: failed + (problems.length ? 1 : 0),
    skips,
    problems,
    output,
    seconds: ms / 1000,
  };
}

function report(outcome: Outcome): void {
  const { file, passed, failed, problems, output, seconds } = outcome;
  console.log(`${failed ? "FAIL" : "ok  "} ${seconds.toFixed(1).padStart(5)} s ${String(passed).padStart(3)} ${file}`);
  if (!failed) return;
  for (const problem of problems) console.log(`  ${problem}`);
  console.log(output.replace(/^/gm, "  | "));
}

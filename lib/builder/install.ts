import { createHash } from "node:crypto";
import { mkdir, realpath, rm, stat } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { Failure } from "../core/errors.ts";
import { commandFailure, type ProcessOutput } from "../exec/exec.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import type { StagePlan } from "../run/stage.ts";
import type { BuildContext } from "./context.ts";

/** What npm reads of a package.json or lock file, as far as it matters here. */
interface PackageFile {
  [field: string]: unknown;
}

const dependencyFields = [
  "dependencies",
  "devDependencies",
  "optionalDependencies",
  "peerDependencies",
  "workspaces",
];
const installScripts = [
  "preinstall",
  "install",
  "postinstall",
  "prepublish",
  "preprepare",
  "prepare",
  "postprepare",
];

/**
 * The install stage: `npm ci` where there is a lock file, else `npm install`; nothing when the package
 * files, Node, npm's settings and what stands in node_modules are as they were after the last one.
 */
export async function planInstall(context: BuildContext): Promise<StagePlan> {
  const { dir } = context;
  const manifest = await readIfThere(join(dir, "package.json"));
  if (manifest === undefined) return { skip: "no package.json" };
  const content = parse(manifest);
  const lockName = (await isThere(join(dir, "npm-shrinkwrap.json")))
    ? "npm-shrinkwrap.json"
    : "package-lock.json";
  const lock = await readIfThere(join(dir, lockName));
  if (content && !asksForWork(content, lock)) return { skip: "package.json names no packages" };
  const record = join(context.state, "install.json");
  const before = parse((await readIfThere(record)) ?? "");
  const key = await inputs(context, manifest, lockName, lock);
  if (!context.force && before?.inputs === key && before.result === (await result(dir))) {
    return { skip: "nothing changed since the last install" };
  }
  const how = lock === undefined ? "install" : "ci";
  return {
    does: `npm ${how}`,
    async work(stage) {
      if ((await findNode(context.env)) === undefined)
        throw new Failure("node is not on PATH, which npm needs; install Node.js, or correct PATH");
      // an install that breaks off must not count as done
      await rm(record, { force: true });
      const quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--no-progress"];
      const npm = await stage.$({ nothrow: true })`npm ${how} ${quiet}`;
      stage.signal.throwIfAborted();
      if (!npm.ok) throw new Failure(`npm ${how} failed${why(npm)}; its lines are above`);
      await mkdir(context.state, { recursive: true });
      // without a lock file npm has written one by now
      const lockNow = await readIfThere(join(dir, lockName));
      const manifestNow = (await readIfThere(join(dir, "package.json"))) ?? manifest;
      const done = {
        inputs: await inputs(context, manifestNow, lockName, lockNow),
        result: await result(dir),
      };
      await writeAtomic(record, `${JSON.stringify(done)}\n`);
      return { note: `npm ${how}` };
    },
  };
}

function why(npm: ProcessOutput): string {
  if (commandFailure(npm)?.code !== undefined) return ": npm is not on PATH";
  return npm.exitCode === null ? "" : ` with exit code ${npm.exitCode}`;
}

/** Whether npm has anything to fetch or to run. */
function asksForWork(manifest: PackageFile, lock: string | undefined): boolean {
  const holds = (value: unknown) =>
    value !== undefined && value !== null && Object.keys(value).length > 0;
  if (dependencyFields.some((field) => holds(manifest[field]))) return true;
  const scripts = (manifest.scripts ?? {}) as PackageFile;
  if (installScripts.some((name) => scripts[name] !== undefined)) return true;
  const packages = (parse(lock ?? "")?.packages ?? {}) as PackageFile;
  return Object.keys(packages).some((name) => name !== "");
}

/** A hash over all that decides what an install does. */
async function inputs(
  context: BuildContext,
  manifest: string,
  lockName: string,
  lock: string | undefined,
): Promise<string> {
  const { dir, env } = context;
  const hash = createHash("sha256");
  const add = (name: string, value: string | undefined) => hash.update(`${name}\0${value ?? ""}\0`);
  add("package.json", manifest);
  add(lockName, lock);
  add(".npmrc", await readIfThere(join(dir, ".npmrc")));
  // workspaces and linked folders have package files of their own
  const packages = (parse(lock ?? "")?.packages ?? {}) as PackageFile;
  for (const name of Object.keys(packages).sort()) {
    if (name === "" || name.split("/").includes("node_modules")) continue;
    add(name, await readIfThere(join(dir, name, "package.json")).catch(() => undefined));
  }
  for (const name of Object.keys(env).sort()) {
    if (name === "NODE_ENV" || name === "NODE_OPTIONS" || /^npm_config_/i.test(name))
      add(name, env[name]);
  }
  add("node", await findNode(env));
  return hash.digest("hex");
}

/**
 * Which node a stage gets, told by its file: path, size and time change with the version, and no process
 * has to be started to learn it.
 */
async function findNode(env: Readonly<Record<string, string>>): Promise<string | undefined> {
  for (const folder of (env.PATH ?? "").split(delimiter)) {
    if (folder === "") continue;
    const file = join(folder, "node");
    const found = await stat(file).catch(() => undefined);
    if (found?.isFile()) return `${await realpath(file)} ${found.size} ${found.mtimeMs}`;
  }
  return undefined;
}

/** A hash over what stands in node_modules: npm's own list, and the package file of everything on it. */
async function result(dir: string): Promise<string> {
  const list = await readIfThere(join(dir, "node_modules", ".package-lock.json")).catch(
    () => undefined,
  );
  if (list === undefined) return (await isThere(join(dir, "node_modules"))) ? "unlisted" : "none";
  const packages = (parse(list)?.packages ?? {}) as Record<string, { link?: boolean } | undefined>;
  const names = Object.keys(packages).sort();
  const states = await Promise.all(
    names.map(async (name) => {
      const found = await stat(join(dir, name, "package.json")).catch(() => undefined);
      // a linked folder is the repo's own and changes with it
      if (packages[name]?.link || !name.includes("node_modules/"))
        return `${name} ${found !== undefined}`;
      return `${name} ${found?.size} ${found?.mtimeMs} ${found?.ino}`;
    }),
  );
  return createHash("sha256").update(list).update(states.join("\n")).digest("hex");
}

async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

function parse(text: string): PackageFile | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as PackageFile) : undefined;
  } catch {
    return undefined;
  }
}

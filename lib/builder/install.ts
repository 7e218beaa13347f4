import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { Failure } from "../core/errors.ts";
import { commandFailure, type ProcessOutput } from "../exec/exec.ts";
import { findInFolders } from "../exec/scripts.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import type { StageContext, StagePlan } from "../run/stage.ts";
import type { BuildContext } from "./context.ts";
import { hashOfInputs, hashOfPackages, packageFiles, removePackages } from "./installed.ts";
import { choosePackageManager, type PackageManager } from "./package-manager.ts";

/** What is read of a package.json or npm's lock file. */
type PackageFile = Record<string, unknown>;

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

/** Neither asks, nor writes a version into package.json (its README). */
const corepackSettings = { COREPACK_ENABLE_DOWNLOAD_PROMPT: "0", COREPACK_ENABLE_AUTO_PIN: "0" };

/**
 * The install stage: the repo's package manager installs what its lock file says, or what package.json asks for
 * where there is none; nothing when all that decides it, and what stands in node_modules, are as they were after the
 * last one.
 */
export async function planInstall(context: BuildContext): Promise<StagePlan> {
  const { dir, env } = context;
  const packageFile = join(dir, "package.json");
  const content = await readJson(packageFile);
  const manager = await readManager(dir, content);
  if (!manager) return { skip: "no package.json" };
  const { name, lock } = manager;
  const isNpm = name === "npm";
  if (content && (isNpm || !lock) && !(await asksForWork(content, dir, lock)))
    return { skip: "package.json names no packages" };
  const record = join(context.state, "install.json");
  const before = await readJson(record);
  const isIntact = before?.result === (await hashOfPackages(dir)) && !context.force;
  if (isIntact && before?.inputs === (await inputs(context, manager)))
    return { skip: "nothing changed since the last install" };
  const title = [name, ...manager.args.filter((word) => !isQuiet(word))].join(" ");
  return {
    does: title,
    needs: async () => void (await findManager(manager, content, env)),
    async work(stage) {
      const program = await findManager(manager, content, env);
      // an install that breaks off must not count as done
      await rm(record, { force: true });
      const $ = stage.$({ env: { ...env, ...corepackSettings } });
      await refuseOtherVersion($, program, manager);
      // npm ci does so itself; yarn 1 and Deno believe their own records of what they installed
      if (lock && !isNpm && !isIntact) await removePackages(dir);
      const result = await $({ nothrow: true })`${program} ${manager.args}`;
      stage.signal.throwIfAborted();
      if (!result.ok) throw new Failure(`${title} failed${why(result)}; its lines are above`);
      // without a lock file the manager has written one by now
      const now = (await readManager(dir, await readJson(packageFile))) ?? manager;
      const done = { inputs: await inputs(context, now), result: await hashOfPackages(dir) };
      await writeAtomic(record, `${JSON.stringify(done)}\n`);
      return { note: title };
    },
  };
}

/** Words that only make it quiet are no part of its name. */
function isQuiet(word: string): boolean {
  return /^--(?:no-|non-|config\.)/.test(word);
}

async function readManager(
  dir: string,
  { packageManager }: PackageFile = {},
): Promise<PackageManager | undefined> {
  return choosePackageManager({
    names: new Set(await readdir(dir)),
    packageManager: typeof packageManager === "string" ? packageManager : undefined,
    yarnLock: await readIfThere(join(dir, "yarn.lock")),
  });
}

/**
 * The command for a manager. With `packageManager` in package.json corepack comes first, which gets that very
 * version; else what is on PATH, else corepack.
 * @throws {Failure} when there is none, with what to install.
 */
async function findManager(
  { name, lock }: PackageManager,
  content: PackageFile | undefined,
  env: BuildContext["env"],
): Promise<string[]> {
  const has = async (program: string) =>
    (await findInFolders(env.PATH ?? "", program)) !== undefined;
  if ((name === "npm" || name === "yarn") && !(await has("node")))
    throw new Failure(`node is not on PATH, which ${name} needs; install Node.js, or correct PATH`);
  const byCorepack = (name === "pnpm" || name === "yarn") && (await has("corepack"));
  if (byCorepack && content?.packageManager !== undefined) return ["corepack", name];
  if (await has(name)) return [name];
  if (byCorepack) return ["corepack", name];
  const asked = lock ?? "packageManager in package.json";
  const how = name === "npm" ? "install Node.js with npm" : `run: npm install --global ${name}`;
  throw new Failure(`${name} is not on PATH, which ${asked} asks for; ${how}, or correct PATH`);
}

/** A manager that cannot read the lock file would write it anew, with other versions. */
async function refuseOtherVersion(
  $: StageContext["$"],
  program: readonly string[],
  { name, lock, version }: PackageManager,
): Promise<void> {
  if (!version) return;
  const { stdout } = await $({ onLine: undefined })`${program} --version`;
  const found = stdout.trim().split("\n").at(-1) ?? "";
  if (version.fits(Number.parseInt(found, 10))) return;
  throw new Failure(
    `${lock} is of ${version.wanted}, and ${name} here is ${found}; set packageManager in package.json, or install ${version.wanted}`,
  );
}

function why(result: ProcessOutput): string {
  if (commandFailure(result)?.code !== undefined) return ": it could not be started";
  return result.exitCode === null ? "" : ` with exit code ${result.exitCode}`;
}

/** Whether there is anything to fetch or to run. */
async function asksForWork(
  manifest: PackageFile,
  dir: string,
  lock: string | undefined,
): Promise<boolean> {
  const holds = (value: unknown) =>
    value !== undefined && value !== null && Object.keys(value).length > 0;
  if (dependencyFields.some((field) => holds(manifest[field]))) return true;
  const scripts = (manifest.scripts ?? {}) as PackageFile;
  if (installScripts.some((name) => scripts[name] !== undefined)) return true;
  return lock !== undefined && (await lockedFolders(dir, lock)).some((name) => name !== "");
}

/** The folders in npm's lock file: "" is the repo, others in the repo are workspaces and linked folders. */
async function lockedFolders(dir: string, lock: string): Promise<string[]> {
  const packages = (await readJson(join(dir, lock)))?.packages ?? {};
  return Object.keys(packages as PackageFile);
}

/** A hash over all that decides what an install does. */
async function inputs(context: BuildContext, manager: PackageManager): Promise<string> {
  const { dir, env } = context;
  const { name, lock, settings } = manager;
  const files = ["package.json", ...settings, ...(lock === undefined ? [] : [lock])];
  // workspaces and linked folders have package files of their own
  if (name === "npm") {
    for (const folder of lock === undefined ? [] : await lockedFolders(dir, lock))
      if (folder !== "" && !folder.split("/").includes("node_modules"))
        files.push(join(folder, "package.json"));
  } else files.push(...(await packageFiles(dir)));
  return await hashOfInputs(dir, files, env, ["node", name]);
}

/** Undefined for what is not there, or not a JSON object. */
async function readJson(file: string): Promise<PackageFile | undefined> {
  const text = (await readIfThere(file)) ?? "";
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as PackageFile) : undefined;
  } catch {
    return undefined;
  }
}

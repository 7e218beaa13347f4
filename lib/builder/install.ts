import { createHash } from "node:crypto";
import { readdir, realpath, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { AgentName } from "package-manager-detector";
import { Failure, ifMissing } from "../core/errors.ts";
import { commandFailure, type ProcessOutput, type Shell } from "../exec/exec.ts";
import { findInFolders } from "../exec/scripts.ts";
import { exists, readIfThere, writeAtomic } from "../files/files.ts";
import { stateFolder } from "../git/checkout.ts";

/** Who installs a repo's packages (package-manager-detector), and whether anything changed. */

type Env = Readonly<Record<string, string>>;
/** What is read of a package.json or npm's lock file. */
type PackageFile = Record<string, unknown>;

const dependencyFields = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies", "workspaces"];
const installScripts = ["preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare"];

/** Files at the top that decide what each manager does, beside package.json and the lock file. */
const settings: Readonly<Partial<Record<AgentName, readonly string[]>>> = {
  npm: [".npmrc"],
  pnpm: [".npmrc", "pnpm-workspace.yaml", ".pnpmfile.cjs"],
  yarn: [".yarnrc.yml", ".yarnrc", ".npmrc"],
  bun: ["bunfig.toml", ".npmrc"],
  deno: ["deno.json", "deno.jsonc", ".npmrc"],
};

/** Words that keep a manager from asking, and from lines that nobody reads in a log. */
const quietly: Readonly<Partial<Record<AgentName, readonly string[]>>> = {
  npm: ["--no-audit", "--no-fund", "--no-update-notifier", "--no-progress"],
  // node_modules that another manager made is replaced; nobody is there to be asked
  pnpm: ["--config.confirmModulesPurge=false", "--config.update-notifier=false"],
};

/** corepack neither asks, nor writes a version into package.json (its README). */
export const managerSettings = { COREPACK_ENABLE_DOWNLOAD_PROMPT: "0", COREPACK_ENABLE_AUTO_PIN: "0" };

/** The package manager of a repo. */
export interface PackageManager {
  name: AgentName;
  /** The lock file that is there; without one the manager chooses versions, and writes it. */
  lock: string | undefined;
  args: readonly string[];
  /** The command in a few words. */
  title: string;
  /** The major version of yarn that reads this lock file: 1, or 2 for those that came later. */
  yarn: 1 | 2 | undefined;
  manifest: PackageFile | undefined;
}

/**
 * The package manager of a repo: npm where there is a lock file of npm; else the one that `packageManager` in
 * package.json names; else the one whose lock file is there; else npm. Deno's lock file counts beside a deno.json.
 * @returns undefined when the repo has nothing to install from.
 * @throws {Failure} when it cannot be told.
 */
export async function packageManager(dir: string): Promise<PackageManager | undefined> {
  const { LOCKS, resolveCommand } = await import("package-manager-detector");
  const names = new Set(await readdir(dir));
  const manifest = await readJson(join(dir, "package.json"));
  const isDeno = names.has("deno.json") || names.has("deno.jsonc");
  const locks = Object.entries(LOCKS)
    .filter(([file, name]) => names.has(file) && name in settings && !settings[name]?.includes(file))
    .filter(([, name]) => name !== "deno" || isDeno);
  const name = choose([...new Set(locks.map(([, each]) => each))], manifest?.packageManager, names);
  if (name === undefined) return undefined;
  // of its own two npm takes the shrinkwrap
  const lock = locks.filter(([, each]) => each === name).at(-1)?.[0];
  const isLater = /^__metadata:/m.test((await readIfThere(join(dir, "yarn.lock"))) ?? "");
  const yarn = name !== "yarn" || lock === undefined ? undefined : isLater ? 2 : 1;
  const agent = yarn === 2 ? "yarn@berry" : name;
  const command = resolveCommand(agent, lock ? "frozen" : "install", [])?.args ?? [];
  const args = command.map((word) => (word === "i" ? "install" : word));
  const quiet = yarn === 1 ? ["--non-interactive"] : (quietly[name] ?? []);
  return { name, lock, args: [...args, ...quiet], title: [name, ...args].join(" "), yarn, manifest };
}

function choose(present: readonly AgentName[], asked: unknown, names: ReadonlySet<string>): AgentName | undefined {
  if (present.includes("npm")) return "npm";
  if (typeof asked === "string") {
    const name = asked.split("@", 1)[0] ?? "";
    if (name in settings) return name as AgentName;
    throw new Failure(
      `package.json: packageManager ${JSON.stringify(asked)} is not npm, pnpm, yarn, bun or deno; ` +
        "name a command of your own for the stage install in build.yml",
    );
  }
  // a deno.lock beside another's lock file belongs to tools of the repo
  const [first, second] = present.filter((name) => name !== "deno" || present.length === 1);
  if (first && second)
    throw new Failure(
      `lock files of ${first} and of ${second} are here; remove one, or set packageManager in package.json`,
    );
  return first ?? (names.has("package.json") ? "npm" : undefined);
}

/**
 * The command for a manager. With `packageManager` in package.json corepack comes first, which gets that very
 * version; else what is on PATH, else corepack.
 * @throws {Failure} when there is none, with what to install.
 */
export async function findManager({ name, lock, manifest }: PackageManager, env: Env): Promise<string[]> {
  const has = async (program: string) => (await findInFolders(env.PATH ?? "", program)) !== undefined;
  if ((name === "npm" || name === "yarn") && !(await has("node")))
    throw new Failure(`node is not on PATH, which ${name} needs; install Node.js, or correct PATH`);
  const byCorepack = (name === "pnpm" || name === "yarn") && (await has("corepack"));
  if (byCorepack && manifest?.packageManager !== undefined) return ["corepack", name];
  if (await has(name)) return [name];
  if (byCorepack) return ["corepack", name];
  const asked = lock ?? "packageManager in package.json";
  const how = name === "npm" ? "install Node.js with npm" : `run: npm install --global ${name}`;
  throw new Failure(`${name} is not on PATH, which ${asked} asks for; ${how}, or correct PATH`);
}

/** yarn 1 and the later ones cannot read each other's lock file: one would write it anew, with other versions. */
export async function refuseOtherYarn($: Shell, program: readonly string[], { yarn }: PackageManager): Promise<void> {
  if (yarn === undefined) return;
  const { stdout } = await $({ onLine: undefined })`${program} --version`;
  const found = stdout.trim().split("\n").at(-1) ?? "";
  if (yarn === 1 ? Number.parseInt(found, 10) === 1 : Number.parseInt(found, 10) >= 2) return;
  const wanted = yarn === 1 ? "yarn 1" : "yarn 2 or later";
  throw new Failure(
    `yarn.lock is of ${wanted}, and yarn here is ${found}; set packageManager in package.json, or install ${wanted}`,
  );
}

/** The command of a script in package.json. */
export function scriptOf({ manifest }: PackageManager, name: string): string | undefined {
  const found = ((manifest?.scripts ?? {}) as PackageFile)[name];
  return typeof found === "string" && found.trim() !== "" ? found : undefined;
}

/** Why an install failed, in a few words. */
export function whyNotInstalled({ title }: PackageManager, result: ProcessOutput): Failure {
  const { exitCode } = result;
  const why =
    commandFailure(result)?.code !== undefined
      ? ": it could not be started"
      : exitCode === null
        ? ""
        : ` with exit code ${exitCode}`;
  return new Failure(`${title} failed${why}`);
}

/** Whether there is anything to fetch or to run. */
export async function asksForWork(dir: string, { name, lock, manifest }: PackageManager): Promise<boolean> {
  if (!manifest || (name !== "npm" && lock)) return true;
  const holds = (value: unknown) => value !== undefined && value !== null && Object.keys(value).length > 0;
  if (dependencyFields.some((field) => holds(manifest[field]))) return true;
  const scripts = (manifest.scripts ?? {}) as PackageFile;
  if (installScripts.some((each) => scripts[each] !== undefined)) return true;
  // folders in npm's lock file: "" is the repo
  const locked = lock === undefined ? undefined : (await readJson(join(dir, lock)))?.packages;
  return Object.keys((locked ?? {}) as PackageFile).some((folder) => folder !== "");
}

/** What was installed the last time, in the toolkit's folder for the checkout. */
const recordIn = (state: string) => join(state, "install.json");

/** Whether all that decides an install is as it was after the last one, which left something. */
export async function isInstalled(
  { dir, state, env }: { dir: string; state: string; env: Env },
  manager: PackageManager,
): Promise<boolean> {
  const last = await readJson(recordIn(state));
  return last !== undefined && last.inputs === (await inputs(dir, env, manager)) && last.left === (await leftIn(dir));
}

/**
 * An install that breaks off must not count as done. After one that did, and when `force` asks for it, what stands in
 * node_modules is removed: yarn 1 and Deno believe their own records of what they installed. npm ci does so itself.
 */
export async function beginInstall(
  { dir, state }: { dir: string; state: string },
  { name, lock }: PackageManager,
  { force }: { force: boolean },
): Promise<void> {
  const record = recordIn(state);
  const isBroken = !(await exists(record));
  await rm(record, { force: true });
  if (name === "npm" || !lock || (!isBroken && !force)) return;
  for (const path of await installedIn(dir)) await rm(path, { recursive: true, force: true });
}

/**
 * What is installed in another worktree of the repo, when an install here would make the same: what to copy, from where
 * to where. Managers that link to a store of their own are as fast by themselves.
 * @param first the other worktree.
 */
export async function installToCopy(
  { dir, state, env }: { dir: string; state: string; env: Env },
  manager: PackageManager,
  first: string,
): Promise<[from: string, to: string][]> {
  if ((manager.name !== "npm" && manager.yarn !== 1) || first === "" || first === dir) return [];
  const from = { dir: first, state: await stateFolder(first), env };
  if ((await exists(join(dir, "node_modules"))) || (await exists(recordIn(state)))) return [];
  if ((await readJson(recordIn(from.state)))?.inputs !== (await inputs(dir, env, manager))) return [];
  if (!(await isInstalled(from, manager))) return [];
  const there = [];
  for (const path of await installedIn(first)) if (await exists(path)) there.push(path);
  return there.map((path) => [path, join(dir, path.slice(first.length + 1))]);
}

/** The install is done. Without a lock file the manager has written one by now. */
export async function rememberInstall(
  { dir, state, env }: { dir: string; state: string; env: Env },
  manager: PackageManager,
): Promise<void> {
  const now = (await packageManager(dir)) ?? manager;
  const done = { inputs: await inputs(dir, env, now), left: await leftIn(dir) };
  await writeAtomic(recordIn(state), `${JSON.stringify(done)}\n`);
}

/**
 * A hash over what decides an install: lock file, every package file, the manager's settings, variables, and which Node
 * it is (by the file's path, size and time: no process has to be started to learn its version and ABI).
 */
async function inputs(dir: string, env: Env, { name, lock }: PackageManager): Promise<string> {
  const hash = createHash("sha256");
  const add = (what: string, value: string | undefined) =>
    hash.update(`${what}\0${value ?? ""}\0${value === undefined}\0`);
  const files = ["package.json", ...(settings[name] ?? []), ...(lock ? [lock] : []), ...(await packageFiles(dir))];
  for (const file of [...new Set(files)].sort()) add(file, await readIfThere(join(dir, file)).catch(ifMissing));
  for (const variable of Object.keys(env).sort()) {
    if (/^(?:NODE_ENV|NODE_OPTIONS|(?:npm_config|pnpm_config|yarn|bun|deno|corepack)_\w+)$/i.test(variable))
      add(variable, env[variable]);
  }
  const node = await findInFolders(env.PATH ?? "", "node");
  const about = node === undefined ? undefined : await stat(node);
  add("node", about && `${await realpath(String(node))} ${about.size} ${about.mtimeMs}`);
  return hash.digest("hex");
}

/** The folders of packages that are there. */
async function leftIn(dir: string): Promise<string> {
  const paths = await installedIn(dir);
  const there = await Promise.all(paths.map(exists));
  return paths
    .filter((_, at) => there[at])
    .map((path) => path.slice(dir.length + 1))
    .join("\n");
}

/** Where an install puts packages: beside each package file of the repo, and yarn's .pnp.cjs. */
async function installedIn(dir: string): Promise<string[]> {
  const folders = new Set(["", ...(await packageFiles(dir)).map((path) => dirname(path))]);
  return [...[...folders].sort().map((folder) => join(dir, folder, "node_modules")), join(dir, ".pnp.cjs")];
}

/** The package files of a repo's workspaces: every one below `dir` that is not in a node_modules folder. */
async function packageFiles(dir: string, below = ""): Promise<string[]> {
  const entries = await readdir(join(dir, below), { withFileTypes: true }).catch(ifMissing);
  const found: string[] = [];
  for (const entry of entries ?? []) {
    const path = join(below, entry.name);
    if (/^(?:package\.json|deno\.jsonc?)$/.test(entry.name)) found.push(path);
    else if (entry.isDirectory() && entry.name !== "node_modules" && !entry.name.startsWith("."))
      found.push(...(await packageFiles(dir, path)));
  }
  return found;
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

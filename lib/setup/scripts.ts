import { Buffer } from "node:buffer";
import { lstat, open, readdir, readFile, readlink, realpath, rename, rm, stat, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { Refused, UsageError } from "../core/errors.ts";
import { type Build, formatBuild, readBuildLine } from "../core/version.ts";
import { exists, temporaryBeside } from "../files/files.ts";
import { content, folder, makeParent } from "./file-steps.ts";
import { fileRemoved, linkRemoved } from "./remove-steps.ts";
import { type Builds, type Facts, inRoot, type Packaged, places, type Plan, type Step } from "./step.ts";
import { isTemplate } from "../files/templates.ts";

/** The scripts: where they are taken from, which version they are, and the steps that install them. */

/** The scripts that can be installed. */
export async function findScripts(from: string | undefined): Promise<Map<string, string>> {
  if (from !== undefined) {
    if ((await stat(from).catch(() => undefined))?.isDirectory()) return await scriptsIn(from);
    throw new UsageError(`--from: ${from} is not a folder that can be read`);
  }
  const here = dirname(await realpath(process.argv[1] ?? "."));
  const beside = await scriptsIn(here);
  return beside.size > 0 ? beside : await scriptsIn(join(here, "../dist"));
}

/** NAME → file, for the .mjs files in a folder that are named as ours are. */
export async function scriptsIn(folder: string): Promise<Map<string, string>> {
  const names = await readdir(folder).catch(() => []);
  const ours = names.filter((name) => /^[a-z-]+\.mjs$/.test(name)).sort();
  return new Map(ours.map((name) => [name.slice(0, -4), join(folder, name)]));
}

/**
 * The package that the running setup is of; undefined: none.
 * @throws {UsageError} for one of npm that is not everybody's, whose files services would not find.
 */
export async function readPackaged(): Promise<Packaged | undefined> {
  const folder = dirname(await realpath(process.argv[1] ?? "."));
  if (await exists(join(folder, "packaged-by"))) {
    const names = await readdir("/usr/lib/systemd/system").catch(() => []);
    const units = names.filter(isTemplate);
    return { by: "dpkg", folder, units, pathOf: (script) => `/usr/bin/${script}` };
  }
  if (!folder.includes("/node_modules/boatyard/")) return undefined;
  const prefix = /^(.*)\/lib\/node_modules\/boatyard\//.exec(folder)?.[1];
  if (prefix === undefined)
    throw new UsageError(
      `${folder} is not an installation for everybody; install it so: npm install --global boatyard`,
    );
  const names = new Set<string>(await readdir(join(prefix, "bin")).catch(() => []));
  const pathOf = (script: string) => (names.has(script) ? join(prefix, "bin", script) : join(folder, `${script}.mjs`));
  return { by: "npm", folder, units: [], pathOf };
}

/** The versions of what is to be installed, of what is there, and of newer files beside the first. */
export async function readBuilds(root: string, scripts: ReadonlyMap<string, string>): Promise<Builds> {
  const [first] = scripts.values();
  const [installed] = (await scriptsIn(join(root, places.scripts))).values();
  const ours = first === undefined ? undefined : readBuildLine(await headOf(first));
  return {
    ours,
    installed: installed === undefined ? undefined : (readBuildLine(await headOf(installed)) ?? null),
    newer: first === undefined ? undefined : await newerBeside(dirname(first), ours),
  };
}

/**
 * Newer scripts in a folder below or above, as they lie there after `scp -r dist host:boatyard` has found
 * the folder of the last time.
 */
async function newerBeside(folder: string, ours: Build | undefined): Promise<Builds["newer"]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const below = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  for (const name of ["..", ...below]) {
    const file = join(folder, name, "setup.mjs");
    const build = readBuildLine(await headOf(file));
    if (build?.date !== undefined && Date.parse(build.date) > Date.parse(ours?.date ?? "1970-01-01"))
      return { file, build };
  }
  return undefined;
}

/** Whether a file, or what a link leads to, is a script of Boatyard's. */
async function isOurScript(path: string): Promise<boolean> {
  const to = await readlink(path).catch(() => undefined);
  // also one whose script has gone
  if (to?.startsWith(`${places.scripts}/`)) return true;
  const head = await headOf(path);
  return (
    readBuildLine(head) !== undefined ||
    // bundles from before they said which version they are
    /^#!.*node\n[^]*Node 20\.15 or newer is needed/.test(head)
  );
}

/** The first 2 KB of a file; nothing where there is none. */
async function headOf(path: string): Promise<string> {
  const found = await lstat(await realpath(path).catch(() => path)).catch(() => undefined);
  if (!found?.isFile()) return "";
  const handle = await open(path, "r").catch(() => undefined);
  if (!handle) return "";
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(2048), 0, 2048, 0);
    return buffer.subarray(0, bytesRead).toString("latin1");
  } finally {
    await handle.close();
  }
}

/** Which version is installed over which, and what is odd about it. */
export function versions({ ours, installed, newer }: Builds): Pick<Plan, "heading" | "warnings"> {
  if (ours === undefined) return {};
  const now = installed ? formatBuild(installed) : undefined;
  const over =
    installed === undefined
      ? ""
      : now === undefined
        ? ", over a version that does not say which it is"
        : now === formatBuild(ours)
          ? ", which is installed here"
          : `, over ${now}`;
  const warnings: string[] = [];
  if (Date.parse(installed?.date ?? "") > Date.parse(ours.date ?? ""))
    warnings.push(`what is installed is newer: ${now}; this puts ${formatBuild(ours)} in its place`);
  if (newer !== undefined)
    warnings.push(
      `newer files lie beside these: ${newer.file} is ${formatBuild(newer.build)}; to install those: ` +
        `node ${newer.file}`,
    );
  return { heading: [`Boatyard ${formatBuild(ours)}${over}`], warnings };
}

/** The script files in one folder, where they find each other, with a link for each on PATH; none of a package's. */
export function scriptSteps({ scripts, packaged }: Facts, names: readonly string[]): Step[] {
  if (packaged) return [];
  const why = "where the scripts are, beside each other";
  const steps: Step[] = [folder({ path: places.scripts, why })];
  for (const name of names) {
    const from = scripts.get(name);
    if (from === undefined)
      throw new UsageError(
        `the script ${name} is not beside setup, nor in the folder of --from; copy dist/${name}.mjs there`,
      );
    const path = join(places.scripts, `${name}.mjs`);
    steps.push(
      content({
        ...{ path, mode: 0o755, what: `script ${path}`, why: `the script ${name}` },
        wanted: () => readFile(from, "utf8"),
        undo: { step: fileRemoved(path) },
      }),
      link({ path: join(places.bin, name), to: path, why: "on everybody's PATH" }),
    );
  }
  return steps;
}

/** A link to one of our scripts. Another link or copy of a script of ours gives way to it. */
export function link({ path, to, why }: { path: string; to: string; why: string }): Step {
  return {
    what: `link ${path} -> ${to}`,
    ...{ path, why },
    async look(root) {
      const here = await inRoot(root, path);
      if ((await readlink(here).catch(() => undefined)) === to) return "ready";
      if (!(await lstat(here).catch(() => undefined))) return "make";
      if (await isOurScript(here)) return "replace";
      throw new Refused(`${here} is there and is not one of Boatyard's scripts; move it away`);
    },
    async perform(root) {
      const here = await inRoot(root, path);
      await makeParent(here);
      const temporary = temporaryBeside(here);
      await symlink(to, temporary);
      try {
        await rename(temporary, here);
      } catch (error) {
        await rm(temporary, { force: true });
        throw error;
      }
    },
    underRoot: (step) => [step],
    undo: { step: linkRemoved(path, to) },
  };
}

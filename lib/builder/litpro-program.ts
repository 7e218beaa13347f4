import { join } from "node:path";
import { Failure } from "../core/errors.ts";
import { findInNodeModules, findOwnNpmProgram, type NpmProgram } from "../exec/scripts.ts";
import { exists, readIfThere } from "../files/files.ts";
import type { StageContext } from "../run/stage.ts";

/** The litpro that compiles a repo. */
export interface Litpro extends NpmProgram {
  /** yarn's file that makes packages in archives readable to Node, to be loaded first. */
  loader?: string | undefined;
}

/** The packages whose program reads an lprc.js: the full one, which brings its plugins along, before the small one. */
const packages = ["literate-programming", "litpro"];

/** Before 1.0, literate-programming was another program, without an lprc.js. */
const isLitpro = ({ name, version }: NpmProgram) =>
  name === "litpro" || Number.parseInt(version ?? "1", 10) >= 1;

/**
 * The litpro of a repo: its own `literate-programming`, its own `litpro`, the one beside the toolkit, the one on PATH.
 * @throws {Failure} when there is none.
 */
export async function findLitpro(dir: string, { $ }: Pick<StageContext, "$">): Promise<Litpro> {
  const loader = join(dir, ".pnp.cjs");
  const isArchived = await exists(loader);
  const found = isArchived
    ? (await inArchives(loader, $)).map((each) => ({ ...each, loader }))
    : await Promise.all(packages.map((name) => findInNodeModules(name, dir)));
  const program =
    found.find((each) => each && isLitpro(each)) ?? (await findOwnNpmProgram("litpro"));
  if (!program) throw notInstalled();
  // an lprc.js may name plugins, which are in the archives, too
  return isArchived ? { ...program, loader } : program;
}

/** Whether there is a litpro, or an install brings one. @throws {Failure} when there is none. */
export async function needsLitpro(dir: string): Promise<void> {
  const text = (await readIfThere(join(dir, "package.json"))) ?? "";
  if (packages.some((name) => text.includes(`"${name}"`))) return;
  if (!(await findOwnNpmProgram("litpro"))) throw notInstalled();
}

const notInstalled = () =>
  new Failure("litpro is not installed; run in the repo: npm install --save-dev litpro");

/** What yarn has put into archives (Plug'n'Play) is found by its own loader alone. */
async function inArchives(loader: string, $: StageContext["$"]): Promise<NpmProgram[]> {
  const code = `
const { createRequire } = require("node:module");
const { dirname, join } = require("node:path");
const own = createRequire(join(process.cwd(), "package.json"));
const found = [];
for (const name of ${JSON.stringify(packages)}) {
  try {
    const path = own.resolve(name + "/package.json");
    const { version, bin } = own(path);
    found.push({ name, version, file: join(dirname(path), typeof bin === "string" ? bin : bin[name]) });
  } catch { /* the repo has no such package */ }
}
console.log(JSON.stringify(found));`;
  const { stdout } = await $({ onLine: undefined })`node --require ${loader} -e ${code}`;
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as NpmProgram[];
}

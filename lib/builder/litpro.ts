import { readdir } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import process from "node:process";
import { Failure, ifMissing } from "../core/errors.ts";
import { findInNodeModules, findOwnNpmProgram, type NpmProgram } from "../exec/scripts.ts";
import { exists, readIfThere } from "../files/files.ts";
import type { StageContext } from "../run/run.ts";

/**
 * Compile the literate programs. litpro exits with 0 on most failures, so its words are read; and it swallows what goes
 * wrong in lprc.js, so that is caught.
 */
export async function compileLitpro(stage: StageContext, dir: string, { force }: { force: boolean }): Promise<string> {
  const program = await findLitpro(dir, stage);
  const name = program.version === undefined ? program.name : `${program.name} ${program.version}`;
  const lines: string[] = [];
  const argv = litproRunner(program, { force });
  const onLine = (line: string) => {
    lines.push(line);
    stage.say(line);
  };
  const { exitCode, signal } = await stage.$({ onLine, nothrow: true })`${argv}`;
  stage.signal.throwIfAborted();
  const report = readReport(lines);
  const advice = await moduleAdvice(dir, lines);
  const first = report.failures[0];
  if (first !== undefined) {
    const more = report.failures.length > 1 ? ` (and ${report.failures.length - 1} more)` : "";
    throw new Failure(`${name}: ${first}${more}${advice}`);
  }
  if (exitCode !== 0)
    throw new Failure(
      `${name} ${signal ? `was ended by ${signal}` : `failed with exit code ${exitCode}`}: ` +
        `${lines.at(-1) ?? "no words"}`,
    );
  if (!report.done) throw new Failure(`${name} ended without DONE: something in a document never came`);
  return `${name}: ${report.saved} saved, ${report.unchanged} unchanged`;
}

/** What litpro's output tells. */
interface LitproReport {
  /** One line each, in litpro's own words. */
  failures: string[];
  done: boolean;
  saved: number;
  unchanged: number;
}

/** Words that tell what litpro still waited for at its end. */
const waiting = /^(?:NOT SAVED|NEED VAR|PROBLEM WITH|COMMAND REQUESTED|NEED(?:ED)? [A-Z]+|[A-Z][A-Z ]+):/;

/** How a build folder ended: `## DONE` and `## !! STILL WAITING` of litpro 2, `DONE: ./build` of those before it. */
const ending = /^(?:## (?:!! )?(DONE|STILL WAITING)|(DONE|STILL WAITING): \.)/;

/** Read litpro's output: an `error:` line or a `STILL WAITING` section is a failure, also next to a `DONE`. */
export function readReport(lines: readonly string[]): LitproReport {
  const report: LitproReport = { failures: [], done: false, saved: 0, unchanged: 0 };
  let section = "";
  for (const line of lines) {
    const [, now, before] = ending.exec(line) ?? [];
    const ended = now ?? before;
    if (ended !== undefined || line.startsWith("## ")) section = ended ?? line.slice(3).trim();
    if (ended === "DONE") report.done = true;
    else if (ended !== undefined) report.failures.push(ended);
    else if (line.startsWith("error:")) report.failures.push(line);
    else if (section === "STILL WAITING" && waiting.test(line)) {
      // the section's title gives way to what it is about
      const title = report.failures.indexOf("STILL WAITING");
      if (title >= 0) report.failures.splice(title, 1);
      report.failures.push(line);
    } else if (line.startsWith("./") && section.startsWith("SAVED")) report.saved += 1;
    else if (line.startsWith("./") && section.startsWith("UNCHANGED")) report.unchanged += 1;
  }
  return report;
}

/**
 * What to say of an error in a built file: the line of the document that it came from, `build/a.js:2 is project.md:11`.
 * litpro keeps no map, but writes most lines as they stand: the one line of the documents with the same text, by its
 * neighbours where several have it. Undefined where that is not clear, or no built file is named.
 * @param lines what a stage that failed printed.
 */
export async function sourceOf(dir: string, lines: readonly string[]): Promise<string | undefined> {
  const files = await builtFiles(dir);
  if (files.size === 0) return undefined;
  const sources = (await readdir(join(dir, "src"), { recursive: true }).catch(ifMissing)) ?? [];
  const names = [...(await readdir(dir)), ...sources.map((name) => join("src", name))].filter((n) => n.endsWith(".md"));
  const documents = await Promise.all(names.map(async (name) => [name, await textLines(join(dir, name))] as const));
  for (const [, path = "", number] of lines.flatMap((line) => [...line.matchAll(/([\w@./-]+\.\w+)[:(](\d+)/g)])) {
    const file = relative(dir, resolve(dir, path));
    const built = files.has(file) ? await textLines(join(dir, file)) : [];
    const at = Number(number) - 1;
    const found = documents.flatMap(([name, document]) =>
      document.flatMap((line, index) => {
        if (!line || line !== built[at]) return [];
        const score = sameLines(document, index, built, at, -1) + sameLines(document, index, built, at, 1);
        return [{ score, words: `${file}:${number} is ${name}:${index + 1}` }];
      }),
    );
    const best = Math.max(...found.map(({ score }) => score));
    const [source, ...others] = found.filter(({ score }) => score === best);
    if (source && others.length === 0) return source.words;
  }
  return undefined;
}

/** litpro lists what it wrote into a folder in its file .checksum, as paths from where it ran. */
async function builtFiles(dir: string): Promise<ReadonlySet<string>> {
  const folders = (await readdir(dir, { withFileTypes: true })).filter((each) => each.isDirectory());
  const lists = await Promise.all(folders.map(({ name }) => readIfThere(join(dir, name, ".checksum"))));
  return new Set(lists.flatMap((list = "") => [...list.matchAll(/"([^"]+)":/g)].map(([, file = ""]) => file)));
}

const textLines = async (file: string) => ((await readIfThere(file)) ?? "").split("\n").map((line) => line.trim());

/** How many lines after (1) or before (-1) two lines are the same, too. */
function sameLines(a: readonly string[], i: number, b: readonly string[], j: number, step: number): number {
  let count = 0;
  while (count < 20 && a[i + step * (count + 1)] === b[j + step * (count + 1)]) count += 1;
  return count;
}

/** In a package of ES modules `module.exports` of an lprc.js is ignored, and litpro alone says nothing of it. */
async function moduleAdvice(dir: string, lines: readonly string[]): Promise<string> {
  if (!lines.some((line) => line.startsWith("error:lprc.js"))) return "";
  const text = (await readIfThere(join(dir, "package.json"))) ?? "{}";
  const isModule = /"type"\s*:\s*"module"/.test(text);
  return isModule ? '; lprc.js must be CommonJS, but package.json says "type": "module": take that line out' : "";
}

/**
 * litpro, started so that it does what it does alone, but says what it otherwise keeps to itself.
 * In literate-programming-cli (0.11 to 2.1) `Folder.lprc` is `try { require(name)(this, args) } catch (e) {}`, and
 * `checksum` trusts its own list of outputs, even where they were deleted or changed by a checkout since.
 * Both are methods of an exported object, so they are replaced before litpro's own file is loaded. Those before 2.0
 * do not tell what they saved: it is told in the words of 2.0 at the end.
 */
function patched(file: string, force: boolean): string {
  return `
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
const file = ${JSON.stringify(file)};
const own = createRequire(file);
let cli;
try { cli = own("literate-programming-cli"); } catch { /* another litpro: it runs as it is */ }
if (cli?.Folder?.lprc) {
  cli.Folder.lprc = function (name, args) {
    if (!existsSync(name)) return;
    try {
      const settings = own(name);
      if (typeof settings !== "function")
        throw new Error("it exports no function; write module.exports = function (Folder, args) { ... }");
      settings(this, args);
    } catch (error) {
      console.log("error:lprc.js: " + String(error?.message ?? error).split("\\n")[0]);
      console.error(error?.stack ?? error);
    }
  };
}
const checksum = cli?.Folder?.checksum;
if (typeof checksum?.firstLoad === "function") {
  const load = checksum.firstLoad;
  checksum.firstLoad = function (...all) {
    load.apply(this, all);
    if (${force}) this.data = {};
    for (const name of Object.keys(this.data ?? {})) {
      let hash;
      try { hash = createHash("sha1").update(readFileSync(name)).digest("hex"); } catch { /* it is gone */ }
      if (hash !== this.data[name]) delete this.data[name];
    }
  };
}
if (checksum?.tosave && parseInt(own("literate-programming-cli/package.json").version) < 2) {
  const decide = checksum.tosave;
  const told = { SAVED: [], UNCHANGED: [] };
  checksum.tosave = function (name, text) {
    const hash = decide.call(this, name, text);
    told[hash ? "SAVED" : "UNCHANGED"].push("./" + name);
    return hash;
  };
  process.on("exit", () => {
    for (const [title, names] of Object.entries(told))
      if (names.length > 0) console.log(["## " + title, ...names].join("\\n"));
  });
}
own(file);
`;
}

/** The argv that runs litpro in its folder; a litpro that is not a JavaScript file is run as it is. */
function litproRunner({ file, loader }: Litpro, { force }: { force: boolean }): string[] {
  if (!file.endsWith(".js")) return [file];
  const code = patched(file, force);
  if (loader !== undefined) return ["node", "--require", loader, "--input-type=module", "-e", code];
  if (process.versions.deno) return [process.execPath, "eval", code];
  return [process.execPath, "--input-type=module", "-e", code];
}

/** The litpro that compiles a repo. */
interface Litpro extends NpmProgram {
  /** yarn's file that makes packages in archives readable to Node, to be loaded first. */
  loader?: string | undefined;
}

/** The packages whose program reads an lprc.js: the full one, which brings its plugins along, before the small one. */
const packages = ["literate-programming", "litpro"];

/** Before 1.0, literate-programming was another program, without an lprc.js. */
const isLitpro = ({ name, version }: NpmProgram) => name === "litpro" || Number.parseInt(version ?? "1", 10) >= 1;

/**
 * The litpro of a repo: its own `literate-programming`, its own `litpro`, the one beside the toolkit, the one on PATH.
 * @throws {Failure} when there is none.
 */
async function findLitpro(dir: string, { $ }: Pick<StageContext, "$">): Promise<Litpro> {
  const loader = join(dir, ".pnp.cjs");
  const isArchived = await exists(loader);
  const found = isArchived
    ? (await inArchives(loader, $)).map((each) => ({ ...each, loader }))
    : await Promise.all(packages.map((name) => findInNodeModules(name, dir)));
  const program = found.find((each) => each && isLitpro(each)) ?? (await findOwnNpmProgram("litpro"));
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

const notInstalled = () => new Failure("litpro is not installed; run in the repo: npm install --save-dev litpro");

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

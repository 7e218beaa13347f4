import process from "node:process";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { findNpmProgram } from "../exec/scripts.ts";
import { Failure } from "../core/errors.ts";
import { readIfThere } from "../files/files.ts";
import type { StageContext, StagePlan } from "../run/stage.ts";
import type { BuildContext } from "./context.ts";

/**
 * The litpro stage: compile the literate programs, when there is an lprc.js. litpro (2.1) exits with 0 on
 * most failures, so its words are read; and it swallows what goes wrong in lprc.js, so that is caught.
 */
export async function planLitpro(context: BuildContext): Promise<StagePlan> {
  const { dir } = context;
  const settings = await stat(join(dir, "lprc.js")).catch(() => undefined);
  if (!settings) return { skip: "no lprc.js" };
  return {
    // which litpro it is shows after the install, not before
    does: "litpro",
    async work(stage) {
      const program = await findNpmProgram("litpro", dir);
      if (!program)
        throw new Failure(
          "litpro is not installed; run in the repo: npm install --save-dev litpro",
        );
      return await runLitpro(context, program, stage);
    },
  };
}

async function runLitpro(
  { dir, force }: BuildContext,
  program: readonly string[],
  stage: StageContext,
): Promise<{ note: string }> {
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
    throw new Failure(`litpro: ${first}${more}${advice}`);
  }
  if (exitCode !== 0)
    throw new Failure(
      `litpro ${signal ? `was ended by ${signal}` : `failed with exit code ${exitCode}`}: ${lines.at(-1) ?? "no words"}`,
    );
  if (!report.done)
    throw new Failure(
      "litpro ended without ## DONE: something in a document never came; its lines are above",
    );
  return { note: `${report.saved} saved, ${report.unchanged} unchanged` };
}

/** What litpro's output tells; pure. */
export interface LitproReport {
  /** One line each, in litpro's own words. */
  failures: string[];
  done: boolean;
  saved: number;
  unchanged: number;
}

/** Words that tell what litpro still waited for at its end. */
const waiting =
  /^(?:NOT SAVED|NEED VAR|PROBLEM WITH|COMMAND REQUESTED|NEED(?:ED)? [A-Z]+|[A-Z][A-Z ]+):/;

/** Read litpro's output: an `error:` line or a `STILL WAITING` section is a failure, also next to a `## DONE`. */
export function readReport(lines: readonly string[]): LitproReport {
  const report: LitproReport = { failures: [], done: false, saved: 0, unchanged: 0 };
  let section = "";
  for (const line of lines) {
    if (line.startsWith("## ")) section = line.slice(3).trim();
    if (line.startsWith("## DONE")) report.done = true;
    else if (line.startsWith("error:")) report.failures.push(line);
    else if (line.startsWith("## !! STILL WAITING")) report.failures.push("STILL WAITING");
    else if (section.startsWith("!! STILL WAITING") && waiting.test(line)) {
      // the section's title gives way to what it is about
      const title = report.failures.indexOf("STILL WAITING");
      if (title >= 0) report.failures.splice(title, 1);
      report.failures.push(line);
    } else if (line.startsWith("./") && section.startsWith("SAVED")) report.saved += 1;
    else if (line.startsWith("./") && section.startsWith("UNCHANGED")) report.unchanged += 1;
  }
  return report;
}

/** In a package of ES modules `module.exports` of an lprc.js is ignored, and litpro alone says nothing of it. */
async function moduleAdvice(dir: string, lines: readonly string[]): Promise<string> {
  if (!lines.some((line) => line.startsWith("error:lprc.js"))) return "";
  const text = (await readIfThere(join(dir, "package.json"))) ?? "{}";
  const isModule = /"type"\s*:\s*"module"/.test(text);
  return isModule
    ? '; lprc.js must be CommonJS, but package.json says "type": "module": take that line out'
    : "";
}

/**
 * litpro, started so that it does what it does alone, but says what it otherwise keeps to itself.
 * In literate-programming-cli 2.1 `Folder.lprc` is `try { require(name)(this, args) } catch (e) {}`, and
 * `checksum` trusts its own list of outputs, even where they were deleted or changed by a checkout since.
 * Both are methods of an exported object, so they are replaced before litpro's own file is loaded.
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
      if (typeof settings !== "function") throw new Error("it exports no function; write module.exports = function (Folder, args) { ... }");
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
own(file);
`;
}

/** The argv that runs litpro in its folder; a litpro that is not a JavaScript file is run as it is. */
function litproRunner(program: readonly string[], { force }: { force: boolean }): string[] {
  const file = program.at(-1) ?? "";
  if (!file.endsWith(".js")) return [...program];
  const code = patched(file, force);
  if (process.versions.deno) return [process.execPath, "eval", code];
  return [process.execPath, "--input-type=module", "-e", code];
}

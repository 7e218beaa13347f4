// Kills a script just before the n-th change that it makes below a folder, whichever thread or process makes it.
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as assert from "uvu/assert";
import { type RunOptions, type RunResult, runCommand } from "./run.ts";
import { needsCommand } from "./skip.ts";
import { tempDir } from "./tmp.ts";

/** Why steps cannot be counted here; undefined when they can. */
export const needsCompiler: string | undefined = needsCommand("cc");

let library: string | undefined;

/** The library that is preloaded, made at its first use. */
function preloaded(): string {
  if (library !== undefined) return library;
  const source = fileURLToPath(new URL("steps.c", import.meta.url));
  const file = join(tempDir(), "steps.so");
  const flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", file, source, "-ldl"];
  const { status, stderr } = spawnSync("cc", flags, { encoding: "utf8" });
  assert.is(status, 0, stderr);
  return (library = file);
}

export type Steps = { result: RunResult; steps: string[] };

/**
 * Runs a command and tells its steps below `folder`: "rename /srv/current". With `kill` it ends by SIGKILL just before
 * that step (the first is 1), which is the last one told.
 */
export async function runSteps(
  argv: readonly string[],
  folder: string,
  options: RunOptions & { kill?: number } = {},
): Promise<Steps> {
  const log = join(tempDir(), "steps");
  const { kill = 0, ...rest } = options;
  const env = {
    ...rest.env,
    LD_PRELOAD: preloaded(),
    STEPS_BELOW: folder,
    STEPS_LOG: log,
    STEPS_KILL: String(kill),
  };
  const result = await runCommand([...argv], { ...rest, env });
  let text = "";
  try {
    text = readFileSync(log, "utf8");
  } catch {
    // it changed nothing
  }
  rmSync(log, { force: true });
  return { result, steps: text.split("\n").slice(0, -1) };
}

/**
 * Kills a command before each of its steps in turn, in a new place each time. `prepare` makes the place and says what is
 * run there; `check` looks at what a kill left. Gives the steps of the run that was not killed.
 */
export async function killAtEachStep(
  prepare: () => Promise<{ argv: readonly string[]; folder: string; options?: RunOptions }>,
  check: (place: { folder: string; step: string }) => Promise<void>,
): Promise<string[]> {
  for (let kill = 1; ; kill++) {
    const { argv, folder, options = {} } = await prepare();
    const { result, steps } = await runSteps(argv, folder, { ...options, kill });
    if (steps.length < kill) {
      assert.is(result.code, 0, result.stderr);
      await check({ folder, step: "none" });
      return steps.map((step) => step.replaceAll(folder, ""));
    }
    const step = `${kill}: ${steps.at(-1)?.replaceAll(folder, "")}`;
    assert.is(result.signal, "SIGKILL", `not killed at ${step}: ${result.stderr}`);
    try {
      await check({ folder, step });
    } catch (error) {
      throw new Error(`killed before step ${step}: ${(error as Error).message}`, { cause: error });
    }
  }
}

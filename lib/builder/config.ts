import process from "node:process";
import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { readIfThere } from "../files/files.ts";
import { parseConfig, y } from "../config/yaml.ts";
import { didYouMean } from "../core/names.ts";
import { readSecretFile, readSecretVariable } from "../config/secrets.ts";

/** The stages that `build` brings along, in their usual order. */
export const builtInStages: readonly string[] = ["pull", "downloads", "install", "litpro", "build", "uploads"];

/** It cannot name a stage: the log's own marks have it, and the run's own time limit. */
const reserved = "run";

/** A build.yml that cannot be used. */
export class BadBuildFile extends UsageError {
  override name = "BadBuildFile";
}

/** What a build.yml says, or stands for when there is none. */
export interface BuildConfig {
  /** Names of stages in their order. */
  stages: readonly string[];
  /** Shell commands by stage; one with the name of a built-in stage replaces it. */
  commands: Readonly<Record<string, string>>;
  /** Added to the environment of every stage but pull. */
  env: Readonly<Record<string, string>>;
  /** Milliseconds: for the whole run, and by stage. */
  timeout: { run?: number | undefined; stages: Readonly<Record<string, number>> };
  /** Values of `env` that no log may show. */
  secrets: readonly string[];
}

export const defaultConfig: BuildConfig = {
  stages: builtInStages,
  commands: {},
  env: {},
  timeout: { stages: {} },
  secrets: [],
};

const variableNames = /^[A-Za-z_][A-Za-z0-9_]*$/;

const stageName = y.string({
  match: /^[A-Za-z][A-Za-z0-9_-]{0,39}$/,
  what: "a stage's name: a letter, then letters, digits, - or _, 40 at most",
});
const value = y.either(
  [y.string(), y.object({ secret_file: y.string() }), y.object({ secret_env: y.string() })],
  "text, or a map with secret_file or secret_env",
);
export const buildSchema = y.object({
  stages: y.optional(y.list(stageName)),
  commands: y.optional(y.record(y.string({ match: /\S/, what: "a shell command" })), {}),
  env: y.optional(y.record(value, badVariable, variableNames), {}),
  timeout: y.optional(
    y.either(
      [y.duration(), y.record(y.duration())],
      "a duration such as 15m, or a map of stages (and run) to durations",
    ),
  ),
});

/**
 * Read DIR/build.yml; without one the defaults hold.
 * @throws {BadBuildFile} with file:line:column for everything that is wrong in it.
 */
export async function readBuildConfig(dir: string): Promise<BuildConfig> {
  const file = join(dir, "build.yml");
  const text = await readIfThere(file);
  if (text === undefined) return defaultConfig;
  return await parseBuildConfig(text, file).catch((error) => {
    throw error instanceof UsageError ? new BadBuildFile(error.message) : error;
  });
}

/** The same for a text; relative secret files are looked up from the current folder. */
export async function parseBuildConfig(text: string, file: string): Promise<BuildConfig> {
  const config = await parseConfig(text, file, buildSchema);
  const { commands, env, timeout } = config.value;
  const stages = config.value.stages ?? builtInStages;
  const problem = (path: (string | number)[], message: string) => new UsageError(`${config.where(path)}: ${message}`);

  const known = [...builtInStages, ...Object.keys(commands)];
  for (const [index, name] of stages.entries()) {
    const at = ["stages", index];
    if (name === reserved) throw problem(at, `no stage may be named "${name}"; rename it`);
    if (!known.includes(name))
      throw problem(
        at,
        `there is no stage "${name}"${didYouMean(name, known)}; ` +
          `use ${builtInStages.join(", ")} or a name from commands`,
      );
    if (stages.indexOf(name) !== index) throw problem(at, `stage "${name}" stands twice; name it once`);
    if (name === "pull" && index > 0)
      throw problem(at, "pull must be the first stage, since it changes what the others see");
  }
  for (const name of Object.keys(commands)) {
    if (!stages.includes(name))
      throw problem(
        ["commands", name],
        `command "${name}" is in no stage${didYouMean(name, stages)}; name it in stages, where its turn is`,
      );
  }
  const limits = typeof timeout === "number" ? { run: timeout } : (timeout ?? {});
  for (const name of Object.keys(limits)) {
    if (name !== "run" && !stages.includes(name))
      throw problem(
        ["timeout", name],
        `there is no stage "${name}"${didYouMean(name, ["run", ...stages])}; use run or one of ${stages.join(", ")}`,
      );
  }
  const secrets: string[] = [];
  const plain: Record<string, string> = {};
  for (const [name, given] of Object.entries(env)) {
    const at = config.where(["env", name]);
    if (typeof given === "string") plain[name] = given;
    else {
      const secret =
        "secret_file" in given
          ? await readSecretFile(expandHome(given.secret_file), at)
          : readSecretVariable(given.secret_env, at);
      plain[name] = secret;
      secrets.push(secret);
    }
  }
  const { run, ...ofStages } = limits as Record<string, number>;
  return { stages, commands, env: plain, timeout: { run, stages: ofStages }, secrets };
}

/** One step of a run: a stage of ours, or a command of the repo's. */
export interface StageChoice {
  name: string;
  /** Undefined: it is a stage of ours. */
  command?: string | undefined;
}

/** Which stages the command line asks for. */
export interface StageFilter {
  only: readonly string[];
  skip: readonly string[];
  from?: string | undefined;
  /** The commit that is asked for: it is pulled, wherever the run starts. */
  sha?: string | undefined;
}

/**
 * The stages of a run in their order; pure.
 * @throws {UsageError} for names that are not a stage, and when none is left.
 */
export function selectStages(config: BuildConfig, { only, skip, from, sha }: StageFilter): StageChoice[] {
  const check = (flag: string, name: string) => {
    if (config.stages.includes(name)) return;
    const hint = didYouMean(name, config.stages);
    throw new UsageError(`${flag}: there is no stage "${name}"${hint}; the stages are ${config.stages.join(", ")}`);
  };
  for (const name of only) check("--only", name);
  // a built-in stage that the repo does without is left out already
  for (const name of skip) if (!builtInStages.includes(name)) check("--skip", name);
  if (from !== undefined) check("--from", from);
  const start = from === undefined ? 0 : config.stages.indexOf(from);
  const names = config.stages.filter(
    (name, index) =>
      (index >= start || (sha !== undefined && name === "pull")) &&
      (only.length === 0 || only.includes(name)) &&
      !skip.includes(name),
  );
  if (names.length === 0) throw new UsageError("no stage is left to run; see --only, --skip, --from");
  return names.map((name) => {
    const command = Object.hasOwn(config.commands, name) ? config.commands[name] : undefined;
    return command === undefined ? { name } : { name, command };
  });
}

/** Whether a stage is the pull of ours. */
export function isPull({ name, command }: StageChoice): boolean {
  return name === "pull" && command === undefined;
}

function badVariable(name: string): string | undefined {
  if (!variableNames.test(name)) return `"${name}" is not a name of an environment variable`;
  return undefined;
}

function expandHome(path: string): string {
  return path.startsWith("~/") ? join(process.env.HOME ?? "/", path.slice(2)) : path;
}

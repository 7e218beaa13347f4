import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import { systemCode, UsageError } from "../core/errors.ts";
import { isRunId, newRunId } from "../core/id.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import { type Checkout, findCheckout, stateFolder } from "../git/checkout.ts";
import { stageEnvironment } from "../run/environment.ts";
import { type Head, readHead, type Target } from "./branch.ts";
import { BadBuildFile, type BuildConfig, defaultConfig, readBuildConfig } from "./config.ts";
import { isPull, selectStages, type Stage, type StageFilter } from "./select.ts";

/** What is asked of a build. */
export interface BuildRequest extends StageFilter, Pick<Target, "ref" | "sha"> {
  dir: string;
  /** Stages do not skip themselves. */
  force: boolean;
}

/** What a stage of a build knows of its folder and run. */
export interface BuildContext {
  /** The folder that is built. */
  dir: string;
  /** Undefined for a folder that is not a git checkout. */
  checkout?: Checkout | undefined;
  /** Where records are kept that are not the repo's business. */
  state: string;
  /** The complete environment of what a stage runs. */
  env: Readonly<Record<string, string>>;
  /** Stages do not skip themselves. */
  force: boolean;
  /** The run's id. */
  run: string;
}

/** What a folder says about the build that is asked for. */
export interface Found extends Selection {
  /** Undefined for a folder that is not a git checkout. */
  head: Head | undefined;
  /** The last complete build. */
  last: LastBuild | undefined;
}

/** What is to be run, in its order. */
export interface Selection {
  config: BuildConfig;
  stages: Stage[];
}

/**
 * Where a build works and under which id.
 * @throws {UsageError} when there is no such folder. @throws {Refused} when it is another user's.
 */
export async function openContext({ dir, force }: BuildRequest): Promise<BuildContext> {
  const top = resolve(dir);
  const about = await stat(top).catch((error: unknown) => {
    if (systemCode(error) !== "EACCES")
      throw new UsageError(`there is no folder ${top}; clone the repository there first`);
    throw new UsageError(
      `${top} is closed to this user; build as its owner: runuser -u OWNER -- build ${top}`,
    );
  });
  if (!about.isDirectory()) throw new UsageError(`${top} is a file; name the folder of a checkout`);
  const env = stageEnvironment();
  const checkout = await findCheckout(top);
  const state = checkout ? stateFolder(checkout) : join(top, ".boatyard");
  const given = process.env.HOOK_RUN ?? "";
  return { dir: top, checkout, state, env, force, run: isRunId(given) ? given : newRunId() };
}

/**
 * Read build.yml and select what is asked for; nothing is changed.
 * @throws {UsageError} when the request or the file is wrong.
 */
export async function readStages(
  { dir, checkout }: BuildContext,
  request: BuildRequest,
): Promise<Selection> {
  try {
    const config = await readBuildConfig(dir);
    const stages = selectStages(config, request);
    if (!checkout && stages.some(isPull))
      throw new UsageError(
        `${dir} is not a git checkout; clone the repository there, or use --skip pull`,
      );
    return { config, stages };
  } catch (error) {
    // the commit that is about to be pulled may bring a build.yml that is right
    const { only, from } = request;
    const pulls = from === undefined && (only.length === 0 || only.includes("pull"));
    const [first] = selectStages(defaultConfig, { ...request, only: [], from: undefined });
    if (!(error instanceof BadBuildFile) || !pulls || !first || !isPull(first)) throw error;
    return { config: defaultConfig, stages: [first] };
  }
}

/** The same with what git says of the folder, and its last build. */
export async function readFolder(context: BuildContext, request: BuildRequest): Promise<Found> {
  const { checkout, state } = context;
  const head = checkout && (await readHead(checkout));
  return { ...(await readStages(context, request)), head, last: await readLastBuild(state) };
}

/** The context of the stages: with the variables that build.yml adds. */
export function withVariables(context: BuildContext, { env }: BuildConfig): BuildContext {
  return { ...context, env: { ...context.env, ...env } };
}

/** The last complete build of a folder, for --if-changed; the first good one of its commit. */
export interface LastBuild {
  run: string;
  sha: string;
  ref?: string | undefined;
  good: boolean;
}

async function readLastBuild(state: string): Promise<LastBuild | undefined> {
  try {
    return JSON.parse((await readIfThere(join(state, "last.json"))) ?? "") as LastBuild;
  } catch {
    return undefined;
  }
}

export async function writeLastBuild(state: string, last: LastBuild): Promise<void> {
  await writeAtomic(join(state, "last.json"), `${JSON.stringify(last)}\n`);
}

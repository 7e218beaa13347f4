import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type Infer, y } from "../config/yaml.ts";
import { ifMissing, systemCode, UsageError } from "../core/errors.ts";
import { StateFile } from "../files/state-file.ts";
import { type Checkout, findCheckout, stateFolder } from "../git/checkout.ts";
import type { Run } from "../run/run.ts";
import {
  BadBuildFile,
  type BuildConfig,
  defaultConfig,
  isPull,
  readBuildConfig,
  selectStages,
  type StageChoice,
  type StageFilter,
} from "./config.ts";

/** A folder that is built. */
export interface BuildFolder {
  dir: string;
  /** Undefined for a folder that is not a git checkout. */
  checkout: Checkout | undefined;
  /** Where records are kept that are not the repo's business. */
  state: string;
}

/** @throws {UsageError} when there is no such folder. @throws {Refused} when it is another user's. */
export async function openFolder(dir: string): Promise<BuildFolder> {
  const top = resolve(dir);
  const about = await stat(top).catch((error: unknown) => {
    if (systemCode(error) === "EACCES")
      throw new UsageError(`${top} is closed to this user; build as its owner: runuser -u OWNER -- build ${top}`);
    return ifMissing(error);
  });
  if (!about) throw new UsageError(`there is no folder ${top}; clone the repository there first`);
  if (!about.isDirectory()) throw new UsageError(`${top} is a file; name the folder of a checkout`);
  const checkout = await findCheckout(top);
  return { dir: top, checkout, state: await stateFolder(top) };
}

/**
 * Read build.yml and select what is asked for; nothing is changed. A wrong build.yml does not stop a pull, which
 * may bring one that is right: then the pull alone is selected. With `strict` it does.
 * @throws {UsageError} when the request or the file is wrong.
 */
export async function readStages(
  { dir, checkout }: BuildFolder,
  filter: StageFilter,
  { strict = false } = {},
): Promise<{ config: BuildConfig; stages: StageChoice[] }> {
  try {
    const config = await readBuildConfig(dir);
    const stages = selectStages(config, filter);
    if (!checkout && stages.some(isPull) && !strict)
      throw new UsageError(`${dir} is not a git checkout; clone the repository there, or use --skip pull`);
    return { config, stages };
  } catch (error) {
    const { only, from } = filter;
    const pulls = from === undefined && (only.length === 0 || only.includes("pull"));
    const [first] = selectStages(defaultConfig, { ...filter, only: [], from: undefined });
    if (strict || !(error instanceof BadBuildFile) || !pulls || !first || !isPull(first)) throw error;
    return { config: defaultConfig, stages: [first] };
  }
}

/**
 * The stages of a run in their order, each with its number among all, as `2/6`. What a pull brings may have another
 * build.yml, which holds from then on.
 */
export async function* stagesOf(
  folder: BuildFolder,
  filter: StageFilter,
  run: Run,
): AsyncGenerator<[stage: StageChoice, position: string]> {
  let { config, stages } = await readStages(folder, filter);
  run.use(config);
  for (let at = 0; at < stages.length && !run.isOver; at++) {
    const stage = stages[at] as StageChoice;
    yield [stage, `${at + 1}/${stages.length}`];
    if (!isPull(stage) || run.isOver || run.stopped !== undefined) continue;
    try {
      config = await readBuildConfig(folder.dir);
      stages = [stage, ...selectStages(config, filter).filter(({ name }) => name !== "pull")];
    } catch (error) {
      return run.fail(error);
    }
    run.use(config);
  }
}

const lastBuild = y.object({ run: y.string(), sha: y.string(), ref: y.optional(y.string()), good: y.boolean() });

/** The last complete build of a folder, for --if-changed; the first good one of its commit. */
export function lastBuildOf({ state }: BuildFolder): StateFile<Infer<typeof lastBuild>> {
  return new StateFile(join(state, "last.json"), lastBuild);
}

import { join, resolve } from "node:path";
import process from "node:process";
import { findCheckout, stateFolder } from "../git/checkout.ts";
import { UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { stageEnvironment } from "../run/environment.ts";
import { isRunId, newRunId } from "../core/id.ts";
import { BadBuildFile, type BuildConfig, defaultConfig, readBuildConfig } from "./config.ts";
import { isPull, planStages, type Stage, type Wanted } from "./plan.ts";
import type { BuildContext } from "./stage.ts";
import { lookAt } from "./stages.ts";

/** What is asked of a build. */
export interface PlanOptions extends Wanted {
  dir: string;
  ref?: string | undefined;
  sha?: string | undefined;
  force: boolean;
}

/** What is known before a build begins; `plan` shows it, `build` goes on from it. */
export interface Prepared {
  context: BuildContext;
  config: BuildConfig;
  stages: Stage[];
}

/**
 * Look at the folder and its build.yml, without changing anything.
 * @throws {UsageError} when the folder or the file is wrong, or a needed script is missing.
 */
export async function prepare(options: PlanOptions): Promise<Prepared> {
  const dir = resolve(options.dir);
  if (!(await exists(dir)))
    throw new UsageError(`there is no folder ${dir}; clone the repository there first`);
  const checkout = await findCheckout(dir);
  const env = stageEnvironment();
  const given = process.env.HOOK_RUN ?? "";
  const context: BuildContext = {
    dir,
    checkout,
    state: checkout ? stateFolder(checkout) : join(dir, ".boatyard"),
    env,
    force: options.force,
    run: isRunId(given) ? given : newRunId(),
  };
  try {
    const config = await readBuildConfig(dir);
    const stages = planStages(config, options);
    if (!checkout && stages.some(isPull)) {
      throw new UsageError(
        `${dir} is no git checkout; clone the repository there, or use --skip pull`,
      );
    }
    return { context, config, stages };
  } catch (error) {
    // the commit that is about to be pulled may bring a build.yml that is right
    const pulls = planStages(defaultConfig, { ...options, only: [], from: undefined });
    const wanted =
      options.from === undefined && (options.only.length === 0 || options.only.includes("pull"));
    if (!(error instanceof BadBuildFile) || !wanted || pulls[0]?.name !== "pull") throw error;
    return { context, config: defaultConfig, stages: pulls.slice(0, 1) };
  }
}

/** What a build would do now, stage by stage; nothing is fetched or run. */
export async function planBuild(
  options: PlanOptions,
): Promise<{ name: string; does?: string; skip?: string }[]> {
  const { context, stages } = await prepare(options);
  return await Promise.all(
    stages.map(async (stage) => ({
      name: stage.name,
      ...withoutWork(await lookAt(stage, context, options)),
    })),
  );
}

function withoutWork(
  plan: { skip: string } | { does: string },
): { skip: string } | { does: string } {
  return "skip" in plan ? { skip: plan.skip } : { does: plan.does };
}

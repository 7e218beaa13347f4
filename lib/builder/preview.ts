import { exitCodeOf, messageOf } from "../core/errors.ts";
import { readBuildConfig } from "./config.ts";
import { readHead } from "./branch.ts";
import { type BuildRequest, openContext, readFolder, withVariables } from "./context.ts";
import { selectStages } from "./select.ts";
import { planStage } from "./stages.ts";

/** What a build would do now, stage by stage; nothing is fetched or run. */
export async function planBuild(
  request: BuildRequest,
): Promise<{ name: string; does?: string; skip?: string }[]> {
  const context = await openContext(request);
  const { config, stages, head } = await readFolder(context, request);
  const now = withVariables(context, config);
  return await Promise.all(
    stages.map(async (stage) => {
      const plan = await planStage(stage, now, request, head);
      return { name: stage.name, ...("skip" in plan ? plan : { does: plan.does }) };
    }),
  );
}

/** What a check says of a stage. */
export interface StageCheck {
  name: string;
  result: "ok" | "skipped" | "failed";
  note: string;
}

/**
 * Read all that a build of the folder would read as it stands, and look for what the stages need; nothing is fetched or run.
 * @throws {UsageError} when build.yml or the request is wrong.
 */
export async function checkBuild(request: BuildRequest): Promise<StageCheck[]> {
  const context = await openContext(request);
  // not `readStages`: a broken build.yml that the next pull may replace is broken now
  const config = await readBuildConfig(context.dir);
  const head = context.checkout && (await readHead(context.checkout));
  const now = withVariables(context, config);
  const checks: StageCheck[] = [];
  for (const stage of selectStages(config, request)) {
    const { name } = stage;
    try {
      const plan = await planStage(stage, now, request, head);
      if ("skip" in plan) checks.push({ name, result: "skipped", note: plan.skip });
      else {
        await plan.needs?.();
        checks.push({ name, result: "ok", note: plan.does });
      }
    } catch (error) {
      if (exitCodeOf(error) === undefined) throw error;
      checks.push({ name, result: "failed", note: messageOf(error) });
    }
  }
  return checks;
}

import type { Target } from "./branch.ts";
import { lookAtInstall } from "./install.ts";
import { lookAtLitpro } from "./litpro.ts";
import type { Stage } from "./plan.ts";
import { lookAtPull } from "./pull.ts";
import { lookAtScript } from "./scripts.ts";
import type { StagePlan } from "../run/stage.ts";
import type { BuildContext } from "./stage.ts";

/**
 * What a stage would do here and now.
 * @throws {UsageError} when a script that it needs is missing.
 */
export async function lookAt(
  stage: Stage,
  context: BuildContext,
  target: Target,
): Promise<StagePlan> {
  if (stage.kind === "command") {
    const { command } = stage;
    return {
      does: command,
      async work({ run }) {
        await run(["/bin/sh", "-c", command]);
      },
    };
  }
  switch (stage.name) {
    case "pull":
      return await lookAtPull(context, target);
    case "install":
      return await lookAtInstall(context);
    case "litpro":
      return await lookAtLitpro(context);
    case "downloads":
    case "uploads":
      return await lookAtScript(context, stage.name);
    default:
      throw new Error(`no such stage: ${stage.name}`);
  }
}

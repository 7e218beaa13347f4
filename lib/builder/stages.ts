import type { Target } from "./branch.ts";
import { lookAtInstall } from "./install.ts";
import { lookAtLitpro } from "./litpro.ts";
import type { Stage } from "./plan.ts";
import { lookAtPull } from "./pull.ts";
import { lookAtScript } from "./scripts.ts";
import type { Finding } from "../run/stage.ts";
import type { Site } from "./stage.ts";

/**
 * What a stage would do here and now.
 * @throws {UsageError} when a script that it needs is missing.
 */
export async function lookAt(stage: Stage, site: Site, target: Target): Promise<Finding> {
  if (stage.kind === "command") {
    const { command } = stage;
    return {
      does: command,
      async work(doing) {
        await doing.run(["/bin/sh", "-c", command]);
      },
    };
  }
  switch (stage.name) {
    case "pull":
      return await lookAtPull(site, target);
    case "install":
      return await lookAtInstall(site);
    case "litpro":
      return await lookAtLitpro(site);
    case "downloads":
    case "uploads":
      return await lookAtScript(site, stage.name);
    default:
      throw new Error(`no such stage: ${stage.name}`);
  }
}

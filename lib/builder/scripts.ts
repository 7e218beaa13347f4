import { join } from "node:path";
import { findScript } from "../exec/scripts.ts";
import { exists } from "../files/files.ts";
import type { StagePlan } from "../run/stage.ts";
import type { BuildContext } from "./stage.ts";

/** The files that a stage of another script reads: without any of them there is nothing to do. */
const inputsOf = {
  downloads: ["manifest.txt", "cloudinary.txt"],
  uploads: ["uploads.yml"],
} as const;

export type ScriptStage = keyof typeof inputsOf;

/**
 * A stage that is another script of ours, run as a child: `downloads DIR`, `uploads DIR`.
 * @throws {UsageError} when the script is needed and missing.
 */
export async function lookAtScript(context: BuildContext, name: ScriptStage): Promise<StagePlan> {
  const files = inputsOf[name];
  const present = await Promise.all(files.map((file) => exists(join(context.dir, file))));
  if (!present.includes(true)) return { skip: `no ${files.join(" or ")}` };
  const argv = await findScript(name);
  return {
    does: `${name} ${context.dir}`,
    async work(stage) {
      await stage.run([...argv, context.dir]);
    },
  };
}

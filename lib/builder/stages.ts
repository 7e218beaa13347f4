import { join } from "node:path";
import { Failure } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { findScript } from "../exec/scripts.ts";
import { exists } from "../files/files.ts";
import type { StagePlan } from "../run/stage.ts";
import type { Head, Target } from "./branch.ts";
import type { BuildContext } from "./context.ts";
import { planInstall } from "./install.ts";
import { planLitpro } from "./litpro.ts";
import { planPull } from "./pull.ts";
import type { Stage } from "./select.ts";

/**
 * What a stage would do here and now.
 * @throws {UsageError} when a script that it needs is missing, or the pull cannot tell what is meant.
 */
export async function planStage(
  stage: Stage,
  context: BuildContext,
  target: Target,
  head: Head | undefined,
): Promise<StagePlan> {
  if (stage.kind === "command") {
    const { command } = stage;
    return { does: command, work: async ({ $ }) => void (await $`/bin/sh -c ${command}`) };
  }
  switch (stage.name) {
    case "pull":
      return planPull(context, target, head);
    case "install":
      return await planInstall(context);
    case "litpro":
      return await planLitpro(context);
    case "downloads":
    case "uploads":
      return await planScript(context, stage.name);
    default:
      throw new Error(`no such stage: ${stage.name}`);
  }
}

/** Scripts that are stages: the files that each reads, without any of which there is nothing to do, and the flag by which it only reads them. */
const scripts = {
  downloads: { files: ["manifest.txt", "cloudinary.txt"], check: "--print" },
  uploads: { files: ["uploads.yml"], check: "--check" },
} as const;

/** A stage that is another script of ours, run as a child: `downloads DIR`, `uploads DIR`. */
async function planScript(
  { dir, env }: BuildContext,
  name: keyof typeof scripts,
): Promise<StagePlan> {
  const { files, check } = scripts[name];
  const present = await Promise.all(files.map((file) => exists(join(dir, file))));
  if (!present.includes(true)) return { skip: `no ${files.join(" or ")}` };
  const script = await findScript(name);
  return {
    does: `${name} ${dir}`,
    async needs() {
      const quiet = $({ cwd: dir, env, nothrow: true });
      const { ok, stderr, message } = await quiet`${script} ${check} ${dir}`;
      if (!ok) throw new Failure(stderr.trim() || message);
    },
    async work({ $ }) {
      await $`${script} ${dir}`;
    },
  };
}

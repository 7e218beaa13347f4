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
  if (stage.kind === "command") return planCommand(stage.command);
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

function planCommand(command: string): StagePlan {
  return {
    does: command,
    async work({ $ }) {
      await $`/bin/sh -c ${command}`;
    },
  };
}

/** The files that a stage of another script reads: without any of them there is nothing to do. */
const inputsOf = {
  downloads: ["manifest.txt", "cloudinary.txt"],
  uploads: ["uploads.yml"],
} as const;

/** The flag by which each reads these files, and does nothing more. */
const checkedBy = { downloads: "--print", uploads: "--check" } as const;

/** A stage that is another script of ours, run as a child: `downloads DIR`, `uploads DIR`. */
async function planScript(
  { dir, env }: BuildContext,
  name: keyof typeof inputsOf,
): Promise<StagePlan> {
  const files = inputsOf[name];
  const present = await Promise.all(files.map((file) => exists(join(dir, file))));
  if (!present.includes(true)) return { skip: `no ${files.join(" or ")}` };
  const script = await findScript(name);
  return {
    does: `${name} ${dir}`,
    async needs() {
      const check = $({ cwd: dir, env, nothrow: true });
      const { ok, stderr, message } = await check`${script} ${checkedBy[name]} ${dir}`;
      if (!ok) throw new Failure(stderr.trim() || message);
    },
    async work({ $ }) {
      await $`${script} ${dir}`;
    },
  };
}

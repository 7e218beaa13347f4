import { UsageError } from "../core/errors.ts";
import { didYouMean } from "../core/names.ts";
import { type BuildConfig, builtInStages } from "./config.ts";

/** One step of a run: a stage of ours, or a command of the repo's. */
export type Stage =
  | { name: string; kind: "built-in" }
  | { name: string; kind: "command"; command: string };

/** Which stages the command line asks for. */
export interface StageFilter {
  only: readonly string[];
  skip: readonly string[];
  from?: string | undefined;
}

/**
 * The stages of a run in their order; pure.
 * @throws {UsageError} for names that are not a stage, and when none is left.
 */
export function selectStages(config: BuildConfig, { only, skip, from }: StageFilter): Stage[] {
  const check = (flag: string, name: string) => {
    if (config.stages.includes(name)) return;
    const hint = didYouMean(name, config.stages);
    throw new UsageError(
      `${flag}: there is no stage "${name}"${hint}; the stages are ${config.stages.join(", ")}`,
    );
  };
  for (const name of only) check("--only", name);
  // a built-in stage that the repo does without is left out already
  for (const name of skip) if (!builtInStages.includes(name)) check("--skip", name);
  if (from !== undefined) check("--from", from);
  const start = from === undefined ? 0 : config.stages.indexOf(from);
  const names = config.stages.filter(
    (name, index) =>
      index >= start && (only.length === 0 || only.includes(name)) && !skip.includes(name),
  );
  if (names.length === 0)
    throw new UsageError("no stage is left to run; see --only, --skip, --from");
  return names.map((name) => {
    const command = Object.hasOwn(config.commands, name) ? config.commands[name] : undefined;
    return command === undefined ? { name, kind: "built-in" } : { name, kind: "command", command };
  });
}

/** Whether a stage is the pull of ours. */
export function isPull({ name, kind }: Stage): boolean {
  return name === "pull" && kind === "built-in";
}

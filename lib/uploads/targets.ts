import { Refused, UsageError } from "../core/errors.ts";
import { didYouMean } from "../core/names.ts";
import { findOnPath } from "../exec/scripts.ts";
import { exists } from "../files/files.ts";
import type { Target } from "./config.ts";

/** The targets that a run serves, and what is refused or missing before it begins. */

/**
 * The targets that were asked for, with what the flags say of deletion; git's commit holds the whole folder anyway.
 * @param to their names; none: all.
 * @throws {UsageError} for a name that no target has.
 */
export function chooseTargets(
  targets: readonly Target[],
  { to, delete: deletes }: { to: readonly string[]; delete: boolean },
): Target[] {
  const known = targets.map(({ name }) => name);
  const wrong = to.find((name) => !known.includes(name));
  if (wrong !== undefined)
    throw new UsageError(
      `--to: there is no target "${wrong}"${didYouMean(wrong, known)}; there are ${known.join(", ")}`,
    );
  return targets
    .filter(({ name }) => to.length === 0 || to.includes(name))
    .map((target) => ({ ...target, delete: target.kind !== "git" && (target.delete || deletes) }));
}

/**
 * An empty folder is a build that went wrong far more often than a site that is to vanish.
 * @throws {Refused} when publishing none of `count` files would empty a target.
 */
export function refuseEmptyFolder(targets: readonly Target[], count: number, from: string): void {
  if (count > 0) return;
  const risky = targets.filter((target) => target.delete || target.kind === "git");
  if (risky.length > 0) {
    const names = risky.map(({ name }) => name).join(", ");
    throw new Refused(
      `${from} is empty: this would remove everything from ${names}; build first, or empty them by hand`,
    );
  }
}

/**
 * Look for the programs and keys that targets need.
 * @throws {UsageError} for all that is missing.
 */
export async function checkTargets(targets: readonly Target[]): Promise<void> {
  const problems: string[] = [];
  for (const target of targets) {
    const { name } = target;
    for (const program of programsOf(target))
      if ((await findOnPath(program)) === undefined)
        problems.push(`${name}: ${program} is not on PATH; install it, or correct PATH`);
    for (const file of target.kind === "s3" ? [] : [target.ssh.key, target.ssh.knownHosts])
      if (file !== undefined && !(await exists(file)))
        problems.push(`${name}: there is no file ${file}; make it, or correct uploads.yml`);
  }
  if (problems.length > 0) throw new UsageError(problems.join("\n"));
}

function programsOf(target: Target): string[] {
  if (target.kind === "s3") return [];
  if (target.kind === "git") return ["git"];
  return target.address.login === undefined ? ["rsync"] : ["rsync", "ssh"];
}

import { stat } from "node:fs/promises";
import { Failure } from "../core/errors.ts";
import { run } from "../exec/exec.ts";

/** What setup asks of systemd. */

export function systemctl(args: string[]) {
  return run(["systemctl", "--no-pager", ...args], { check: false, timeout: 600_000 });
}

/** Whether a unit runs since before one of the files changed. */
export async function isOlder(
  units: readonly string[],
  files: readonly string[],
): Promise<boolean> {
  const changed = await Promise.all(
    files.map((file) =>
      stat(file).then(
        (found) => found.ctimeMs,
        () => 0,
      ),
    ),
  );
  const newest = Math.max(0, ...changed);
  for (const unit of units) {
    const { stdout } = await systemctl([
      "show",
      "--timestamp=unix",
      "--property=ActiveEnterTimestamp",
      "--value",
      unit,
    ]);
    const since = Number(/^@(\d+)/.exec(stdout.trim())?.[1] ?? NaN);
    if ((since + 1) * 1000 < newest) return true;
  }
  return false;
}

/** Whether units changed on disk since systemd read them. */
export async function needsReload(units: readonly string[]): Promise<boolean> {
  // --all: also what is loaded and does not run just now, such as a timer's service
  const show = ["show", "--all", "--property=NeedDaemonReload", "--value"];
  return /^yes$/m.test((await systemctl([...show, ...units])).stdout);
}

/** Whether all of them are on, now and at every boot. systemctl's exit code tells of one of them only. */
export async function areOn(units: readonly string[]): Promise<boolean> {
  for (const [word, wanted] of [
    ["is-enabled", /^(?:enabled|static|linked|alias|indirect)/],
    ["is-active", /^(?:active|reloading|activating)$/],
  ] as const) {
    const { stdout } = await systemctl([word, ...units]);
    const words = stdout.trim().split("\n");
    if (words.length !== units.length || !words.every((each) => wanted.test(each))) return false;
  }
  return true;
}

/**
 * Have systemctl do something.
 * @throws {Failure} with the last words of the service, which say why.
 */
export async function systemd(args: string[], units: readonly string[] = []): Promise<void> {
  const { code, stderr } = await systemctl([...args, ...units]);
  if (code === 0) return;
  // what systemctl itself says is only that it failed; the service has told its journal why
  const [unit] = [...units.filter((name) => name.endsWith(".service")), ...units];
  const tail = ["--no-pager", "--quiet", "--output=cat", "--lines=3", `--unit=${unit ?? ""}`];
  const journal = await run(["journalctl", ...tail], { check: false }).catch(() => undefined);
  const why = journal?.stdout.trim() || stderr.trim() || `exit code ${code}`;
  throw new Failure(
    `systemctl ${[...args, ...units].join(" ")} failed; journalctl --unit=${unit ?? ""} ends with:\n${why}`,
  );
}

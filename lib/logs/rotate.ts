import { basename } from "node:path";
import { type RotateOptions, rotateLog } from "../log/rotate.ts";
import type { Terminal } from "../cli/terminal.ts";

/**
 * Rotate the logs of several folders, and say what was done.
 * @returns 1 when a part could not be compressed or removed.
 */
export async function rotateLogs(
  files: readonly string[],
  options: RotateOptions,
  terminal: Terminal,
): Promise<number> {
  let code = 0;
  for (const file of files) {
    const report = await rotateLog(file, options);
    const { rotated, compressed, pruned, held, problems } = report;
    const { dryRun = false } = options;
    terminal.printJson({
      file,
      dryRun,
      rotated: rotated ?? null,
      compressed,
      pruned,
      held,
      problems,
    });
    const say = (done: string, planned: string, path: string) =>
      terminal.print(`${dryRun ? planned : done} ${path}`);
    if (rotated) say("rotated", "would rotate", `${file} to ${basename(rotated)}`);
    for (const path of compressed) say("compressed", "would compress", path);
    for (const path of pruned) say("removed", "would remove", path);
    for (const path of held) terminal.note(`left ${path} as it is: somebody has it open`);
    for (const problem of problems) terminal.warn(problem);
    if (!rotated && compressed.length + pruned.length + held.length === 0)
      terminal.note(`${file}: nothing to do`);
    if (problems.length > 0) code = 1;
  }
  return code;
}

import { lstat, readdir, readlink, rm, rmdir, stat } from "node:fs/promises";
import { Failure } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { lookUpUser } from "../exec/users.ts";
import { inRoot, type Step } from "./step.ts";

/** Steps that remove a path. What is gone already is ready, so that a removal that was killed is run again. */

/** What removes a path, on the machine or below another root. */
function removal(what: string, path: string, rest: Pick<Step, "look" | "perform">): Step {
  return { what, path, why: "setup made it", ...rest, underRoot: (step) => [step] };
}

const isAt = async (root: string, path: string) =>
  (await lstat(await inRoot(root, path)).catch(() => undefined)) ? "remove" : "ready";

export function fileRemoved(path: string): Step {
  return removal(`file ${path}`, path, {
    look: (root) => isAt(root, path),
    perform: async (root) => await rm(await inRoot(root, path), { force: true }),
  });
}

/** It goes only while it is our link; another's is left alone. */
export function linkRemoved(path: string, to: string): Step {
  return {
    ...fileRemoved(path),
    what: `link ${path}`,
    look: async (root) =>
      (await readlink(await inRoot(root, path)).catch(() => undefined)) === to ? "remove" : "ready",
  };
}

/** A folder that is shared with others, or with a person: it goes when nothing is left in it. */
export function emptyFolderRemoved(path: string): Step {
  return removal(`folder ${path}, if nothing is left in it`, path, {
    // what the steps before it remove is still there when the plan is made
    look: (root) => isAt(root, path),
    // what is left in it is somebody's
    perform: async (root) => await rmdir(await inRoot(root, path)).catch(() => {}),
  });
}

/** A folder with all that is in it, once its user runs nothing any more. */
export function treeRemoved(path: string, owner?: string): Step {
  const step = removal(`folder ${path} with all that is in it`, path, {
    look: (root) => isAt(root, path),
    async perform(root) {
      if (root !== "/") return await rm(await inRoot(root, path), { recursive: true, force: true });
      if (owner !== undefined) await refuseWhileRunning(owner);
      // rm(1) follows no link that somebody puts there meanwhile
      await $`rm -rf --one-file-system -- ${path}`;
    },
  });
  return { ...step, why: "--purge" };
}

/** @throws {Failure} while a process of that user runs: it would go on writing into what is removed. */
export async function refuseWhileRunning(name: string): Promise<void> {
  const user = await lookUpUser(name).catch(() => undefined);
  if (!user) return;
  for (const pid of (await readdir("/proc")).filter((each) => /^\d+$/.test(each))) {
    const found = await stat(`/proc/${pid}`).catch(() => undefined);
    if (found?.uid === user.uid)
      throw new Failure(
        `${name} still runs process ${pid}; wait for its run to end, or end it (hook-server cancel RUN), and run ` +
          "this again",
      );
  }
}

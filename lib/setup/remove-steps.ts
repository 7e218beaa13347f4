import { lstat, readdir, readlink, rm, rmdir, stat } from "node:fs/promises";
import { Failure } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { lookUpUser } from "../exec/users.ts";
import { inRoot } from "./machine.ts";
import type { Step } from "./step.ts";

/** Steps of `setup remove`. What is gone already is ready, so one that was killed is run again. */

const why = "setup made it";

/** @param ifLinkTo it goes only while it is our link; another's is left alone. */
export function fileRemoved(path: string, { ifLinkTo }: { ifLinkTo?: string } = {}): Step {
  return {
    what: `${ifLinkTo === undefined ? "file" : "link"} ${path}`,
    ...{ path, why },
    async look(root) {
      const here = await inRoot(root, path);
      if (ifLinkTo !== undefined)
        return (await readlink(here).catch(() => undefined)) === ifLinkTo ? "remove" : "ready";
      return (await lstat(here).catch(() => undefined)) ? "remove" : "ready";
    },
    perform: async (root) => await rm(await inRoot(root, path), { force: true }),
    underRoot: () => [fileRemoved(path, ifLinkTo === undefined ? {} : { ifLinkTo })],
  };
}

/** A folder that is shared with others, or with a person: it goes when nothing is left in it. */
export function emptyFolderRemoved(path: string): Step {
  return {
    what: `folder ${path}, if nothing is left in it`,
    ...{ path, why },
    // what the steps before it remove is still there when the plan is made
    look: async (root) =>
      (await readdir(await inRoot(root, path)).catch(() => undefined)) === undefined
        ? "ready"
        : "remove",
    async perform(root) {
      // what is left in it is somebody's
      await rmdir(await inRoot(root, path)).catch(() => {});
    },
    underRoot: () => [emptyFolderRemoved(path)],
  };
}

/** A folder with all that is in it, once its user runs nothing any more. */
export function treeRemoved(path: string, owner?: string): Step {
  return {
    what: `folder ${path} with all that is in it`,
    ...{ path, why: "--purge" },
    look: async (root) =>
      (await lstat(await inRoot(root, path)).catch(() => undefined)) ? "remove" : "ready",
    async perform(root) {
      if (owner !== undefined && root === "/") await refuseWhileRunning(owner);
      await rm(await inRoot(root, path), { recursive: true, force: true });
    },
    underRoot: () => [treeRemoved(path)],
  };
}

/** An account that setup made, and its group. Any other is left alone. */
export function accountRemoved(name: string, comment: string): Step {
  const ours = (text: string) => text.includes(`:${comment}:`);
  return {
    what: `user ${name}`,
    why: "--purge",
    needs: ["userdel"],
    async look() {
      const { stdout } = await $({ nothrow: true })`getent passwd -- ${name}`;
      return ours(stdout) ? "remove" : "ready";
    },
    async perform() {
      await refuseWhileRunning(name);
      await $`userdel -- ${name}`;
    },
  };
}

/** @throws {Failure} while a process of that user runs: it would go on writing into what is removed. */
async function refuseWhileRunning(name: string): Promise<void> {
  const user = await lookUpUser(name).catch(() => undefined);
  if (!user) return;
  for (const pid of (await readdir("/proc")).filter((each) => /^\d+$/.test(each))) {
    const found = await stat(`/proc/${pid}`).catch(() => undefined);
    if (found?.uid === user.uid)
      throw new Failure(
        `${name} still runs process ${pid}; wait for its run to end, or end it (hook-server cancel RUN), and run this again`,
      );
  }
}

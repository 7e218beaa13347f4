import { statfs } from "node:fs/promises";
import { messageOf } from "../core/errors.ts";
import { formatSize } from "../core/units.ts";

/** What is wrong with the machine, for those who look at the page: what was told, and what the disk is like now. */
export class Problems {
  readonly #told = new Map<string, string>();

  /** Note a problem under a name, or that there is none any more. */
  set(name: string, problem: string | undefined): void {
    if (problem === undefined) this.#told.delete(name);
    else this.#told.set(name, problem);
  }

  /** @param state the folder whose disk is looked at. */
  async list(state: string): Promise<string[]> {
    return [...(await diskProblem(state)), ...this.#told.values()];
  }
}

async function diskProblem(state: string): Promise<string[]> {
  try {
    const { bavail, blocks, bsize } = await statfs(state);
    const [free, share] = [bavail * bsize, bavail / Math.max(1, blocks)];
    return share < 0.05 || free < 256 * 1024 * 1024
      ? [`The disk of ${state} is nearly full: ${formatSize(free)} are free`]
      : [];
  } catch (error) {
    return [`The disk of ${state} cannot be looked at: ${messageOf(error)}`];
  }
}

import { lstat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ifMissing } from "../core/errors.ts";
import { gitIn } from "../git/git.ts";

/** Milliseconds between two looks at the files. */
const pause = 500;

/**
 * The names of the files that changed, each time some did, of those that git does not ignore; the first time at once,
 * with none. What changes while the caller works counts too, unless it did so the time before: then the work writes it.
 * @param dir a checkout.
 */
export async function* watchFiles(dir: string, signal: AbortSignal): AsyncGenerator<string[]> {
  let known = await readFiles(dir);
  const look = async () => {
    const before = known;
    known = await readFiles(dir);
    return [...new Set([...before.keys(), ...known.keys()])].filter((name) => before.get(name) !== known.get(name));
  };
  yield [];
  for (let own: string[] = []; ; ) {
    const meanwhile = await look();
    let changed = meanwhile.filter((name) => !own.includes(name));
    own = meanwhile;
    for (; changed.length === 0; changed = await look()) await sleep(pause, undefined, { signal });
    yield changed;
  }
}

/** Size and time of each file that git tracks or would add. */
async function readFiles(dir: string): Promise<Map<string, string>> {
  const { stdout } = await gitIn(dir)`git ls-files -z --cached --others --exclude-standard`;
  const names = stdout.split("\0").filter((name) => name !== "");
  const files = await Promise.all(
    names.map(async (name) => {
      const about = await lstat(join(dir, name)).catch(ifMissing);
      return [name, about ? `${about.size} ${about.mtimeMs}` : "gone"] as const;
    }),
  );
  return new Map(files);
}

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { readIfThere, writeAtomic } from "../files/files.ts";

/** The last complete build of a folder, for --if-changed; the first good one of its commit. */
export interface LastBuild {
  run: string;
  sha: string;
  ref?: string | undefined;
  good: boolean;
}

export async function readLastBuild(state: string): Promise<LastBuild | undefined> {
  try {
    return JSON.parse((await readIfThere(join(state, "last.json"))) ?? "") as LastBuild;
  } catch {
    return undefined;
  }
}

export async function writeLastBuild(state: string, last: LastBuild): Promise<void> {
  await mkdir(state, { recursive: true });
  await writeAtomic(join(state, "last.json"), `${JSON.stringify(last)}\n`);
}

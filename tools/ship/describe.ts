// What every script declares of itself, as it prints it: what completion, the manual and the packages are made from.
import { execFile } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Description } from "../../lib/cli/help.ts";
import { scriptNames } from "../scripts.ts";

export type { Description };

export const root = fileURLToPath(new URL("../../", import.meta.url));

export { scriptNames };

/** The declaration of every script; of the bundles in `dist`, where one is named, which start sooner. */
export async function describeScripts(dist?: string): Promise<Description[]> {
  const described = (await scriptNames()).map(async (name) => {
    const argv = dist
      ? [join(dist, `${name}.mjs`)]
      : ["--import", import.meta.resolve("tsx"), join(root, "scripts", `${name}.ts`)];
    const { stdout } = await promisify(execFile)(process.execPath, [...argv, "help", "--json"]);
    return JSON.parse(stdout) as Description;
  });
  return await Promise.all(described);
}

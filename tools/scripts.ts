import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../", import.meta.url));

/** The names of the scripts of a tree, in order. NAME-commands.ts holds the subcommands of one. */
export async function scriptNames(tree = root): Promise<string[]> {
  const files = await readdir(join(tree, "scripts")).catch(() => []);
  return files
    .filter((file) => file.endsWith(".ts") && !file.endsWith("-commands.ts"))
    .map((file) => file.slice(0, -3))
    .sort();
}

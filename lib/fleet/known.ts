import { readdir, readFile } from "node:fs/promises";
import { isShortName } from "../core/names.ts";
import { parseList } from "./master/list.ts";
import { wantedRepos } from "./master/want.ts";
import { readSettings, type RepoFlags, settingsFor } from "./settings.ts";

/** What a machine of the fleet knows, for completion in a shell. */

/** The groups in a list of slaves. */
export async function knownGroups(list: string): Promise<string[]> {
  const { targets } = parseList(await readFile(list, "utf8"), list);
  return targets.map(({ group }) => group).filter((group) => group !== "");
}

/** The repos that this master told its slaves of. */
export const knownRepos = wantedRepos;

/** The repos that this slave serves. */
export async function servedRepos(config: string | undefined, flags: RepoFlags): Promise<string[]> {
  const { repos } = settingsFor("any", await readSettings(config), flags);
  return (await readdir(repos)).filter(isShortName);
}

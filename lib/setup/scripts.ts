import { lstat, readdir, realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { ownFolder } from "../exec/scripts.ts";
import { exists } from "../files/files.ts";
import { isTemplate, template } from "../files/templates.ts";
import { group, type Item, link, unit } from "../items/items.ts";

/** The scripts, which stay where they are: which folder it is, units and commands that name it. */

/** The scripts that units start: where setup itself is. */
export interface Scripts {
  folder: string;
  /** Why units may not name that folder. */
  problem?: string | undefined;
  /** A package manager has brought them, and puts them on PATH. */
  isPackage: boolean;
  /** The names of the units that a package has brought. */
  units: readonly string[];
}

/** Where the scripts are that units name: of another root, where a person puts them. */
export async function readScripts(root: string): Promise<Scripts> {
  const file = await realpath(process.argv[1] ?? ".");
  const folder = dirname(file);
  const byDpkg = await exists(join(folder, "packaged-by"));
  const isPackage = byDpkg || folder.includes("/node_modules/");
  const names = byDpkg ? await readdir("/usr/lib/systemd/system").catch(() => []) : [];
  const problem = byDpkg ? undefined : await problemOf(file);
  if (root !== "/" && !isPackage) return { folder: ownFolder, units: [], isPackage };
  return { folder, problem, isPackage, units: names.filter(isTemplate) };
}

/** Why a service may not run what lies there: somebody else could change it, or its account not read it. */
async function problemOf(file: string): Promise<string | undefined> {
  const moved =
    `put the scripts where only root can write, and start setup there: mkdir -p ${ownFolder}; ` +
    `cp ${dirname(file)}/*.mjs ${ownFolder}; node ${ownFolder}/setup.mjs …`;
  if (!file.endsWith(".mjs")) return `units start single files, made by npm run bundle; ${moved}`;
  for (let path = file; ; path = dirname(path)) {
    const { uid, mode } = await lstat(path);
    if (uid !== 0 || mode & 0o022) return `${path} can be changed by others than root; ${moved}`;
    if ((mode & 0o005) !== 5) return `${path} is closed to the accounts of the services; ${moved}`;
    if (path === dirname(path)) return undefined;
  }
}

interface Known {
  scripts: Scripts;
}

/** The file of a script. */
export const scriptFile = ({ scripts }: Known, name: string): string => join(scripts.folder, `${name}.mjs`);

/** A unit by its template, or another text, with the scripts where they are; none where a package has brought it. */
export function unitOf({ scripts }: Known, name: string, why: string, own = template(name)): Item[] {
  if (own === template(name) && scripts.units.includes(name)) return [];
  return [unit(name, unitText(own, scripts.folder), why)];
}

/** A unit's text with the scripts in that folder. */
export const unitText = (text: string, folder: string): string =>
  text.replace(/\/usr\/local\/bin\/([a-z-]+)/g, (_, script: string) => join(folder, `${script}.mjs`));

/** Commands on PATH, also for runs and their `on_success:`, where no package has put them. */
export function commands({ scripts }: Known, names: readonly string[]): Item[] {
  if (scripts.isPackage) return [];
  const links = (all: readonly string[], path: string) => {
    const what = `links in ${commandsFolder} to ${scripts.folder}: ${all.join(" ")}`;
    const one = (name: string) => {
      const to = join(scripts.folder, `${name}.mjs`);
      return link({ path: join(commandsFolder, name), to, why: "a command" });
    };
    return group({ what, why: "commands, also for what builds start", path }, all.map(one));
  };
  const own = names.map((name) => links([name], join(commandsFolder, name)));
  return [...own, links(["boatyard", "logs", "setup"], commandsFolder)];
}

/** Where those are that all have in common. */
export const commandsFolder = "/usr/local/bin";

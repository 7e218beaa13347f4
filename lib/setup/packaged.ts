import { readdir, readlink, realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { UsageError } from "../core/errors.ts";
import { exists, readIfThere } from "../files/files.ts";
import { emptyFolderRemoved, file, fileRemoved } from "./file-steps.ts";
import { scriptsIn, systemctl } from "./machine.ts";
import { reload, restart } from "./service-steps.ts";
import { type Finding, places, type Plan, type Step } from "./step.ts";
import { templates } from "./templates.ts";

/** What is different when a package manager has brought the scripts: they are where it puts them, and its to replace. */

export interface Packaged {
  by: "dpkg" | "npm";
  /** Where the scripts are. */
  folder: string;
  /** How each is started: by its name on PATH, or by its file where it is kept off PATH. */
  pathOf: (script: string) => string;
  /** Where the package's own units are; none: setup writes them. */
  units?: string;
}

/**
 * The package that the running setup is of; undefined: none.
 * @throws {UsageError} for one of npm that is not everybody's, whose files services would not find.
 */
export async function readPackaged(): Promise<Packaged | undefined> {
  const folder = dirname(await realpath(process.argv[1] ?? "."));
  if (await exists(join(folder, "packaged-by")))
    return {
      ...{ by: "dpkg", folder, units: "/usr/lib/systemd/system" },
      pathOf: (script) => `/usr/bin/${script}`,
    };
  if (!folder.includes("/node_modules/boatyard/")) return undefined;
  const prefix = /^(.*)\/lib\/node_modules\/boatyard\//.exec(folder)?.[1];
  if (prefix === undefined)
    throw new UsageError(
      `${folder} is not an installation for everybody; install it so: npm install --global boatyard`,
    );
  const names = new Set<string>(await readdir(join(prefix, "bin")).catch(() => []));
  const pathOf = (script: string) =>
    names.has(script) ? join(prefix, "bin", script) : join(folder, `${script}.mjs`);
  return { by: "npm", folder, pathOf };
}

const isBelow = (path: string | undefined, folder: string) =>
  path?.startsWith(`${folder}/`) === true || path === folder;

/** The same plan where the scripts are a package's: none is copied, and units start those that are there. Pure. */
export function forPackage(
  plan: Plan,
  { pathOf, units }: Packaged,
  shipped: readonly string[],
): Plan {
  let needs: readonly string[] = [];
  const steps = plan.steps.flatMap((step): Step[] => {
    const { path, unit } = step;
    const brought =
      isBelow(path, places.scripts) ||
      isBelow(path, places.bin) ||
      path === "/bin/slave-activate" ||
      (unit?.isTemplate && units !== undefined && shipped.includes(unit.name));
    if (brought) {
      needs = [...needs, ...(step.needs ?? [])];
      return [];
    }
    if (step.relocated) return [step.relocated(pathOf)];
    if (unit === undefined || path === undefined) return [step];
    const text = unit.text.replace(/\/usr\/local\/bin\/([a-z-]+)/g, (_, name: string) =>
      pathOf(name),
    );
    return [file({ path, text, mode: 0o644, why: step.why })];
  });
  const [first, ...rest] = steps;
  return {
    ...plan,
    steps: first ? [{ ...first, needs: [...needs, ...(first.needs ?? [])] }, ...rest] : [],
  };
}

/** The names of our units that a package has, among those of others. */
export async function shippedUnits({ units }: Packaged): Promise<string[]> {
  const names = units === undefined ? [] : await readdir(units).catch(() => []);
  return names.filter((name) => Object.hasOwn(templates, name));
}

/** What an earlier `setup` has left that is found before the package's files. */
interface Leftovers {
  steps: Step[];
  /** Units that are on by what was left, and have to be on by the package's. */
  units: string[];
  findings: Finding[];
}

/** @param root `/`, or the system below it */
async function readLeftovers(packaged: Packaged): Promise<Leftovers> {
  const steps: Step[] = [];
  const units: string[] = [];
  const findings: Finding[] = [];
  const fix = "boatyard setup upgrade removes it";
  for (const script of (await scriptsIn(packaged.folder)).keys()) {
    const to = join(places.scripts, `${script}.mjs`);
    for (const folder of [places.bin, "/bin"]) {
      const path = join(folder, script);
      if ((await readlink(path).catch(() => undefined)) !== to) continue;
      findings.push({ what: `${path} is the package's`, fix });
      steps.push(fileRemoved(path, { ifLinkTo: to }));
    }
    if (await exists(to)) steps.push(fileRemoved(to));
  }
  if (await exists(places.scripts)) steps.push(emptyFolderRemoved(places.scripts));
  for (const name of await shippedUnits(packaged)) {
    const path = join(places.units, name);
    const text = await readIfThere(path);
    if (!text?.includes("Description=Boatyard")) continue;
    const other = name === "slave-server.service" && !/^User=slave$/m.test(text);
    const byHand = `it has a user of its own: systemctl edit ${name} has room for User= and its folders; then remove it`;
    findings.push({ what: `${path} is the package's`, fix: other ? byHand : fix });
    if (other) continue;
    steps.push(fileRemoved(path));
    units.push(name);
  }
  // what is on of build@ and the like has a link to the file that goes
  for (const folder of ["multi-user.target.wants", "timers.target.wants"])
    for (const name of await readdir(join(places.units, folder)).catch(() => []))
      if (/@.+\./.test(name) && units.includes(name.replace(/@.+\./, "@."))) units.push(name);
  return { steps, units, findings };
}

/** What `setup check` says of it. */
export async function checkLeftovers(): Promise<Finding[]> {
  const packaged = await readPackaged();
  return packaged?.by === "dpkg" ? (await readLeftovers(packaged)).findings : [];
}

/** What `setup upgrade` does about it; undefined: nothing is left, or no package is here. */
export async function planLeftovers(): Promise<Plan | undefined> {
  const packaged = await readPackaged();
  if (packaged?.by !== "dpkg") return undefined;
  const { steps, units } = await readLeftovers(packaged);
  if (steps.length === 0) return undefined;
  const again = units.filter((name) => !name.includes("@."));
  const services = again.filter((name) => name.endsWith(".service"));
  return {
    heading: ["what an earlier setup has put before the package's files is removed"],
    steps: [
      ...steps,
      ...(again.length > 0 ? [enabledAgain(again)] : []),
      reload(units, "systemd reads the package's units"),
      restart(services, undefined, "what runs is what was removed"),
    ],
    notes: [],
  };
}

/** Units that are on are on by the package's files. */
function enabledAgain(units: readonly string[]): Step {
  const linkOf = (unit: string) => join(places.units, "multi-user.target.wants", unit);
  const isOn = async (unit: string) =>
    (await systemctl("is-enabled", unit)).stdout.trim() === "enabled" ||
    (await readlink(linkOf(unit)).catch(() => undefined)) !== undefined;
  return {
    what: `systemd: enable again ${units.join(" ")}`,
    ...{ why: "those that are on, by the package's files", systemd: true },
    async look() {
      for (const unit of units) if (await isOn(unit)) return "replace";
      return "ready";
    },
    async perform() {
      for (const unit of units) if (await isOn(unit)) await systemctl("reenable", unit);
    },
  };
}

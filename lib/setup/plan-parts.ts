import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { places } from "./places.ts";
import type { Facts, Step } from "./step.ts";
import { templates } from "./templates.ts";

/** Steps that several plans have. */

/** A folder with its mode; `owner` is root unless given. */
export const folder = (path: string, mode: number, why: string, owner?: string): Step => ({
  kind: "folder",
  path,
  mode,
  why,
  ...(owner === undefined ? {} : { owner }),
});

/** The script files in one folder, where they find each other, with a link for each on PATH. */
export function scriptSteps(facts: Facts, names: readonly string[]): Step[] {
  const steps = [folder(places.scripts, 0o755, "where the scripts stand, beside each other")];
  for (const name of names) {
    const from = facts.scripts.get(name);
    if (from === undefined)
      throw new UsageError(
        `the script ${name} is not beside setup; copy dist/${name}.mjs there, or name its folder with --from`,
      );
    const path = join(places.scripts, `${name}.mjs`);
    steps.push({ kind: "copy", path, from, mode: 0o755, why: `the script ${name}` });
    steps.push({
      kind: "link",
      path: join(places.bin, name),
      to: path,
      why: "on everybody's PATH",
    });
  }
  return steps;
}

/** A unit as its template has it. */
export function unit(name: keyof typeof templates, why: string): Step {
  return { kind: "file", path: join(places.units, name), text: templates[name], mode: 0o644, why };
}

/**
 * Units on, and those restarted whose files are newer than their process.
 * @param instances patterns of units that others switch on: `build@*`
 */
export function started(
  units: string[],
  scripts: readonly string[],
  instances: readonly string[] = [],
): Step[] {
  const files = [
    ...units.map((name) => join(places.units, name.replace(/@.*\./, "@."))),
    ...scripts.map((name) => join(places.scripts, `${name}.mjs`)),
  ];
  return [
    {
      kind: "reload",
      units: [...units, ...instances],
      why: "systemd reads the units that changed",
    },
    { kind: "enable", units, why: "on now, and at every boot" },
    {
      kind: "restart",
      units: units.filter((name) => name.endsWith(".service")),
      files,
      why: "what runs is older than its files",
    },
  ];
}

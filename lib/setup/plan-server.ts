import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { formatBuild } from "../core/version.ts";
import { copy, file, folder, link, secret } from "./file-steps.ts";
import { emptyHooks } from "./hooks-file.ts";
import { type Builds, type Facts, type Note, places, type Plan, type Step } from "./step.ts";
import { templates } from "./templates.ts";
import { enable, reload, restart } from "./unit-steps.ts";

/** `setup server`: hook-server and all that it starts. */
export function planServer(facts: Facts): Plan {
  // a service that cannot read its configuration does not start
  if (facts.hooksProblem !== undefined) throw new UsageError(facts.hooksProblem);
  const names = [...facts.scripts.keys()].sort();
  for (const needed of ["hook-server", "build", "release", "server-update", "logs"])
    if (!names.includes(needed)) names.push(needed);
  const needs = ["git", "flock", "setpriv", "rsync", "ssh", "ssh-keygen"];
  const steps: Step[] = [
    ...scriptSteps(facts, names, needs),
    configFolder(),
    folder({
      ...{ path: places.state, mode: 0o711, holds: "data" },
      why: "hook-server's queue, runs and their logs",
    }),
    ownFile(
      places.hooks,
      emptyHooks(templates["hooks.yml"]),
      "which repos are built; yours from now on",
    ),
    folder({
      ...{ path: places.fleet, mode: 0o755 },
      why: "the list of slaves, and the secret that signs requests",
    }),
    ownFile(
      places.list,
      emptyList(templates["slavelist.txt"]),
      "the slaves that server-update tells; yours from now on",
    ),
    secret({
      ...{ path: places.listSecret, mode: 0o600 },
      why: "signs what server-update asks of the slaves",
    }),
    unit("hook-server.socket", "holds the address, also while the server restarts"),
    unit("hook-server.service", "runs hook-server, with few powers"),
    unit("build@.service", "builds one repo; for those that no webhook reaches"),
    unit("build@.timer", "… every five minutes"),
    unit("logs-rotate@.service", "keeps one repo's log small"),
    unit("logs-rotate@.timer", "… every hour"),
  ];
  if (facts.nginx) {
    const path = "/etc/nginx/snippets/boatyard-hooks.conf";
    const why = "nginx is here, and hands webhooks over";
    steps.push(file({ path, text: templates["nginx-hooks.conf"], mode: 0o644, why }));
  }
  const homeless = withoutAccount(facts);
  if (homeless.length === 0) steps.push(...hookServerStarted());
  const title = `hook-server is not started yet: ${places.hooks} names accounts that are not there; make them`;
  const missing: Note = { title, lines: homeless.map((repo) => `setup repo ${repo}`) };
  const proxy = facts.nginx
    ? "in the server block of your site: include snippets/boatyard-hooks.conf;"
    : "a web server with a certificate in front of 127.0.0.1:3420: templates/Caddyfile, nginx-hooks.conf";
  const next: Note = { title: "Next", lines: [proxy, "setup repo OWNER/NAME"] };
  return {
    ...versions(facts.builds),
    steps,
    notes: homeless.length === 0 ? [next] : [missing, next],
  };
}

/** Repos of hooks.yml whose account is not there, as after a restore: hook-server refuses to start with them. */
export function withoutAccount({ repos, accounts }: Facts): string[] {
  return repos
    .filter(({ user }) => user !== undefined && !accounts.has(user))
    .map(({ repo }) => repo);
}

/** The service on, and running the files that are there now. */
export function hookServerStarted(): Step[] {
  const units = ["hook-server.socket", "hook-server.service"];
  return started(units, ["hook-server"], ["build@*", "logs-rotate@*"]);
}

/** Which version is installed over which, and what is odd about it. */
export function versions({ ours, installed, newer }: Builds): Pick<Plan, "heading" | "warnings"> {
  if (ours === undefined) return {};
  const now = installed ? formatBuild(installed) : undefined;
  const over =
    installed === undefined
      ? ""
      : now === undefined
        ? ", over a version that does not say which it is"
        : now === formatBuild(ours)
          ? ", which is installed here"
          : `, over ${now}`;
  const warnings: string[] = [];
  if (Date.parse(installed?.date ?? "") > Date.parse(ours.date ?? ""))
    warnings.push(
      `what is installed is newer: ${now}; this puts ${formatBuild(ours)} in its place`,
    );
  if (newer !== undefined)
    warnings.push(
      `newer files lie beside these: ${newer.file} is ${formatBuild(newer.build)}; to install those: node ${newer.file}`,
    );
  return { heading: [`Boatyard ${formatBuild(ours)}${over}`], warnings };
}

/** The template's list with its examples as comments: a fresh server tells no slaves. */
export function emptyList(template: string): string {
  return template.replace(/^(?=[^#\s])/gm, "# ");
}

/** Where configuration and secrets are. */
export function configFolder(): Step {
  return folder({ path: places.config, mode: 0o755, why: "configuration and secrets" });
}

/** A person's own file: made once, never overwritten. */
export function ownFile(path: string, text: string, why: string): Step {
  return file({ path, text, mode: 0o644, once: true, why });
}

/**
 * The script files in one folder, where they find each other, with a link for each on PATH.
 * @param needs programs that the scripts run
 */
export function scriptSteps(
  facts: Facts,
  names: readonly string[],
  needs: readonly string[],
): Step[] {
  const why = "where the scripts are, beside each other";
  const steps: Step[] = [{ ...folder({ path: places.scripts, mode: 0o755, why }), needs }];
  for (const name of names) {
    const from = facts.scripts.get(name);
    if (from === undefined)
      throw new UsageError(
        `the script ${name} is not beside setup; copy dist/${name}.mjs there, or name its folder with --from`,
      );
    const path = join(places.scripts, `${name}.mjs`);
    steps.push(copy({ path, from, mode: 0o755, why: `the script ${name}` }));
    steps.push(link({ path: join(places.bin, name), to: path, why: "on everybody's PATH" }));
  }
  return steps;
}

/** A unit as its template has it. */
export function unit(
  name: keyof typeof templates,
  why: string,
  text: string = templates[name],
): Step {
  return file({ path: join(places.units, name), text, mode: 0o644, why });
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
  const services = units.filter((name) => name.endsWith(".service"));
  return [
    reload([...units, ...instances], "systemd reads the units that changed"),
    enable(units, "on now, and at every boot"),
    restart(services, files, "what runs is older than its files"),
  ];
}

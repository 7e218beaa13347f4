import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { commentFor } from "./accounts.ts";
import { emptyHooks, reposOf } from "./hooks-file.ts";
import { type Facts, type Note, places, type Plan, type Step, type StepOf } from "./step.ts";
import { templates } from "./templates.ts";

/** `setup server`: hook-server and all that it starts. */
export function planServer(facts: Facts): Plan {
  const names = [...facts.scripts.keys()].sort();
  for (const needed of ["hook-server", "build", "release", "server-update", "logs"])
    if (!names.includes(needed)) names.push(needed);
  const steps: Step[] = [
    ...scriptSteps(facts, names),
    folder(places.config, 0o755, "configuration and secrets"),
    folder(places.state, 0o711, "hook-server's queue, runs and their logs"),
    ownFile(
      places.hooks,
      emptyHooks(templates["hooks.yml"]),
      "which repos are built; yours from now on",
    ),
    folder(places.fleet, 0o755, "the list of slaves, and the secret that signs requests"),
    ownFile(
      places.list,
      emptyList(templates["slavelist.txt"]),
      "the slaves that server-update tells; yours from now on",
    ),
    {
      kind: "secret",
      path: places.listSecret,
      mode: 0o600,
      why: "signs what server-update asks of the slaves",
    },
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
    steps.push({ kind: "file", path, text: templates["nginx-hooks.conf"], mode: 0o644, why });
  }
  const homeless = withoutAccount(facts);
  if (homeless.length === 0) steps.push(...hookServerStarted());
  const title = `hook-server is not started yet: ${places.hooks} names accounts that are not there; make them`;
  const missing: Note = { title, lines: homeless.map((repo) => `setup repo ${repo}`) };
  const proxy = facts.nginx
    ? "in the server block of your site: include snippets/boatyard-hooks.conf;"
    : "a web server with a certificate in front of 127.0.0.1:3420: templates/Caddyfile, nginx-hooks.conf";
  const next: Note = { title: "Next", lines: [proxy, "setup repo OWNER/NAME"] };
  return { steps, notes: homeless.length === 0 ? [next] : [missing, next] };
}

/** Repos of hooks.yml whose account is not there, as after a restore: hook-server refuses to start with them. */
export function withoutAccount({ hooks, accounts }: Facts): string[] {
  return reposOf(hooks ?? "")
    .filter(({ user }) => user !== undefined && !accounts.has(user))
    .map(({ repo }) => repo);
}

/** The service on, and running the files that are there now. */
export function hookServerStarted(): Step[] {
  const units = ["hook-server.socket", "hook-server.service"];
  return started(units, ["hook-server"], ["build@*", "logs-rotate@*"]);
}

/** The template's list with its examples as comments: a fresh server tells no slaves. */
export function emptyList(template: string): string {
  return template.replace(/^(?=[^#\s])/gm, "# ");
}

/** An account of its own for a repo, an app or slave-server (`what`); `system`: nobody signs in to it. */
export function account(
  name: string,
  { home, system, what, why }: { home: string; system: boolean; what: string; why: string },
): Step {
  return { kind: "account", name, home, system, comment: commentFor(what), why };
}

/** A folder with its mode; `owner` is root unless given. */
export function folder(path: string, mode: number, why: string, owner?: string): Step {
  return { kind: "folder", path, mode, why, ...(owner === undefined ? {} : { owner }) };
}

/** A person's own file: made once, never overwritten. */
export function ownFile(path: string, text: string, why: string): Step {
  return { kind: "file", path, text, mode: 0o644, once: true, why };
}

/** The script files in one folder, where they find each other, with a link for each on PATH. */
export function scriptSteps(facts: Facts, names: readonly string[]): Step[] {
  const steps = [folder(places.scripts, 0o755, "where the scripts are, beside each other")];
  for (const name of names) {
    const from = facts.scripts.get(name);
    if (from === undefined)
      throw new UsageError(
        `the script ${name} is not beside setup; copy dist/${name}.mjs there, or name its folder with --from`,
      );
    const path = join(places.scripts, `${name}.mjs`);
    steps.push({ kind: "copy", path, from, mode: 0o755, why: `the script ${name}` });
    const onPath = join(places.bin, name);
    steps.push({ kind: "link", path: onPath, to: path, why: "on everybody's PATH" });
  }
  return steps;
}

/** A unit as its template has it. */
export function unit(name: keyof typeof templates, why: string): StepOf<"file"> {
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
  const all = [...units, ...instances];
  const services = units.filter((name) => name.endsWith(".service"));
  return [
    { kind: "reload", units: all, why: "systemd reads the units that changed" },
    { kind: "enable", units, why: "on now, and at every boot" },
    { kind: "restart", units: services, files, why: "what runs is older than its files" },
  ];
}

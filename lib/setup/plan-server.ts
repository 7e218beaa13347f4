import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { as, lookUpUser } from "../exec/users.ts";
import { exists } from "../files/files.ts";
import { isAppName } from "../web-folder/version-file.ts";
import { account, chooseAccount, unixName } from "./accounts.ts";
import { file, folder } from "./file-steps.ts";
import { emptyHooks } from "./hooks-file.ts";
import { privateKey, publicKey, secret } from "./key-steps.ts";
import { type BusClient, masterOnBus } from "./plan-bus.ts";
import { scriptSteps, versions } from "./scripts.ts";
import { enable, renewed, type Service, started, unit } from "./service-steps.ts";
import { commandAs, type Facts, type Note, places, type Plan, type Step } from "./step.ts";
import { template } from "../files/templates.ts";

/** What a machine runs for others: a server, whose hook-server builds, and apps that launchfit keeps up to date. */

/** `setup server`: hook-server and all that it starts. */
export function planServer(facts: Facts, bus?: BusClient): Plan {
  // a service that cannot read its configuration does not start
  if (facts.hooksProblem !== undefined) throw new UsageError(facts.hooksProblem);
  const steps: Step[] = [
    ...serverScripts(facts),
    configFolder(),
    folder({
      ...{ path: places.state, mode: 0o711, holds: "data" },
      why: "hook-server's queue, runs and their logs",
    }),
    file({
      ...{ path: places.hooks, text: emptyHooks(template("hooks.yml")), once: true },
      why: "which repos are built; yours from now on",
    }),
    folder({ path: places.fleet, why: "the list of slaves, and the secret that signs requests" }),
    file({
      ...{ path: places.list, text: emptyList(template("slavelist.txt")), once: true },
      why: "the slaves that server-update tells; yours from now on",
    }),
    secret({ path: places.listSecret, why: "signs what server-update asks of the slaves" }),
    ...serverUnits(facts),
    ...(bus ? [...masterOnBus(bus), enable(["server-update.timer"], "renews the orders of slaves that are off")] : []),
  ];
  const homeless = withoutAccount(facts);
  if (homeless.length === 0) steps.push(...hookServerStarted());
  const title = `hook-server is not started yet: ${places.hooks} names accounts that are not there; make them`;
  const missing: Note = { title, lines: homeless.map((repo) => `setup repo ${repo}`) };
  const proxy = facts.nginx
    ? "in the server block of your site: include snippets/boatyard-hooks.conf;"
    : "a web server with a certificate in front of /run/boatyard/*.sock: templates/Caddyfile, nginx-hooks.conf";
  const next: Note = { title: "Next", lines: [proxy, "setup repo OWNER/NAME"] };
  return {
    ...versions(facts.builds),
    needs: ["git", "flock", "setpriv", "rsync", "ssh", "ssh-keygen"],
    steps,
    notes: homeless.length === 0 ? [next] : [missing, next],
  };
}

/** All scripts that are there, since a server runs most of them. */
function serverScripts(facts: Facts): Step[] {
  const names = new Set(facts.scripts.keys());
  for (const needed of ["hook-server", "build", "release", "server-update", "logs"]) names.add(needed);
  return scriptSteps(facts, [...names].sort());
}

function serverUnits(facts: Facts): Step[] {
  const path = "/etc/nginx/snippets/boatyard-hooks.conf";
  const why = "nginx is here, and hands webhooks over";
  return [
    privateKey({
      ...{ path: places.masterKey, type: "ed25519" },
      why: "signs the orders of server-update",
    }),
    publicKey({
      ...{ path: `${places.masterKey}.pub`, of: places.masterKey },
      why: "goes into the slaves' slave.yml",
    }),
    folder({ path: places.fleetState, holds: "data", why: "what should run on the slaves" }),
    ...unit(facts, "hook-server.socket", "holds the address, also while the server restarts"),
    ...unit(facts, "hook-server.service", "runs hook-server, with few powers"),
    ...unit(facts, "build@.service", "builds one repo; for those that no webhook reaches"),
    ...unit(facts, "build@.timer", "… every five minutes"),
    ...unit(facts, "logs-rotate@.service", "keeps one repo's log small"),
    ...unit(facts, "logs-rotate@.timer", "… every hour"),
    ...unit(facts, "server-update.service", "brings slaves along that were down; off until you want it"),
    ...unit(facts, "server-update.timer", "… every few minutes: systemctl enable --now server-update.timer"),
    ...(facts.nginx ? [file({ path, text: template("nginx-hooks.conf"), why })] : []),
  ];
}

const hookServer: Service = {
  units: ["hook-server.socket", "hook-server.service"],
  scripts: ["hook-server"],
  // switched on for one repo each
  others: ["build@*", "logs-rotate@*", "server-update*"],
};

/** What an upgrade replaces on a server. */
export function renewedServer(facts: Facts): Step[] {
  return [...serverScripts(facts), ...serverUnits(facts), ...renewed(hookServer)];
}

/** Repos of hooks.yml whose account is not there, as after a restore: hook-server refuses to start with them. */
export function withoutAccount({ repos, accounts }: Facts): string[] {
  return repos.filter(({ user }) => user !== undefined && !accounts.has(user)).map(({ repo }) => repo);
}

/** The service on, and running the files that are there now. */
export function hookServerStarted(): Step[] {
  return started(hookServer);
}

/** The template's list with its examples as comments: a fresh server tells no slaves. */
export function emptyList(template: string): string {
  return template.replace(/^(?=[^#\s])/gm, "# ");
}

/** Where configuration and secrets are. */
export function configFolder(): Step {
  return folder({ path: places.config, why: "configuration and secrets" });
}

export interface AppOptions {
  app: string;
  server: string;
  key: string;
  user: string | undefined;
}

/** `setup app NAME`: an account, a deploy directory, the first install, and launchfit as a service. */
export function planApp(facts: Facts, options: AppOptions): Plan {
  if (!isAppName(options.app)) throw new UsageError(`"${options.app.slice(0, 200)}" is not an app name`);
  if (!/^https?:\/\/|^file:\/\//.test(options.server))
    throw new UsageError(`--server: "${options.server}" is not an https, http or file URL`);
  if (URL.canParse(options.server) && new URL(options.server).password !== "")
    throw new UsageError(
      "--server: a password in a URL can be read by others; put it into .netrc in the home of the app's account",
    );
  if (!/^(?:0x)?[0-9A-Fa-f]{40,64}$/.test(options.key))
    throw new UsageError("--key: a whole fingerprint is 40 hex digits, without spaces");
  const { steps, dir } = appSteps(facts, options, [options.server, "--key", options.key]);
  return {
    ...versions(facts.builds),
    needs: ["flock"],
    steps,
    notes: [
      {
        title: "Next",
        lines: [`settings of the app: ${dir}/launchify.yml`, `launchfit status --dir ${dir}`],
      },
    ],
  };
}

/** Scripts and unit of every app. */
function appFiles(facts: Facts): Step[] {
  return [
    ...scriptSteps(facts, ["launchfit", "setup", "logs"]),
    ...unit(facts, "launchfit@.service", "keeps it running and up to date"),
  ];
}

function appService(user: string): Service {
  return { units: [`launchfit@${user}.service`], scripts: ["launchfit"] };
}

/** What an upgrade replaces for an app. */
export function renewedApp(facts: Facts, user: string): Step[] {
  return [...appFiles(facts), ...renewed(appService(user))];
}

/** @param args launchfit's for the first install; none: it is there already. */
export function appSteps(
  facts: Facts,
  { app, user: given }: Pick<AppOptions, "app" | "user">,
  args?: string[],
): { steps: Step[]; dir: string } {
  const purpose = `app ${app}`;
  const derived = unixName(app);
  const user = chooseAccount({ what: purpose, derived, given }, facts.accounts);
  // launchfit@.service knows the folder by the user's name
  const dir = join("/srv", user);
  const steps = [
    ...appFiles(facts),
    account({
      ...{ name: user, home: dir, system: true, purpose },
      why: "the app runs as a user of its own",
    }),
    folder({ path: dir, owner: user, holds: "data", why: "its deploy directory" }),
    ...(args ? [install(facts, dir, user, args)] : []),
    ...started(appService(user)),
  ];
  return { steps, dir };
}

/** The first install, as the app's user. */
function install({ packaged }: Facts, dir: string, user: string, args: string[]): Step {
  const argv = [packaged?.pathOf("launchfit") ?? join(places.bin, "launchfit"), ...args];
  return {
    what: `as ${user} in ${dir}: ${argv.join(" ")}`,
    why: "the first install; everything must be signed by that key",
    needs: ["setpriv"],
    look: async () => ((await exists(join(dir, "current"))) ? "ready" : "make"),
    async perform() {
      await $(as(await lookUpUser(user), { cwd: dir, timeout: 1_800_000 }))`${argv}`;
    },
    byHand: () => [commandAs(user, "env", "-C", dir, ...argv)],
  };
}

import { join } from "node:path";
import { limitsSchema } from "../config/limits.ts";
import { checkValue } from "../config/yaml.ts";
import { cleanText } from "../core/clean.ts";
import { Failure, UsageError } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { type Limits, limitLines } from "../exec/scope.ts";
import { as, lookUpUser } from "../exec/users.ts";
import { exists } from "../files/files.ts";
import { account, file, folder, type Item } from "../items/items.ts";
import { read, running } from "../items/services.ts";
import { isAppName } from "../web-folder/version-file.ts";
import { chooseAccount, unixName } from "./accounts.ts";
import { emptyHooks } from "./hooks-file.ts";
import { privateKey, publicKey, secret } from "./keys.ts";
import { configFolder, type Facts, type Note, places, type Plan } from "./machine.ts";
import { type BusClient, masterOnBus } from "./plan-bus.ts";
import { commands, scriptFile, unitOf } from "./scripts.ts";
import { template } from "../files/templates.ts";

/** What a machine runs for others: a server, whose hook-server builds, and apps that launchfit keeps up to date. */

/** `setup server`: hook-server and all that it starts. */
export function planServer(facts: Facts, bus?: BusClient): Plan {
  // a service that cannot read its configuration does not start
  if (facts.hooksProblem !== undefined) throw new UsageError(facts.hooksProblem);
  const homeless = withoutAccount(facts);
  const title = `hook-server is not started yet: ${places.hooks} names accounts that are not there; make them`;
  const missing: Note = { title, lines: homeless.map((repo) => `setup repo ${repo}`) };
  const proxy = facts.nginx
    ? "in the server block of your site: include snippets/boatyard-hooks.conf;"
    : "a web server with a certificate in front of /run/boatyard/*.sock: templates/Caddyfile, nginx-hooks.conf";
  const next: Note = { title: "Next", lines: [proxy, "setup repo OWNER/NAME"] };
  return {
    needs: ["git", "flock", "setpriv", "rsync", "ssh", "ssh-keygen"],
    scripts: ["hook-server", "build", "downloads", "uploads", "release", "server-update", "logs"],
    items: [
      ...commands(facts, ["hook-server", "build", "downloads", "uploads", "release", "server-update"]),
      ...serverFiles(facts),
      ...(bus
        ? [...masterOnBus(bus), running(["server-update.timer"], "renews the orders of slaves that are off")]
        : []),
      ...(homeless.length === 0 ? [hookServerRuns(facts)] : []),
    ],
    notes: homeless.length === 0 ? [next] : [missing, next],
  };
}

function serverFiles(facts: Facts): Item[] {
  const path = "/etc/nginx/snippets/boatyard-hooks.conf";
  return [
    configFolder(),
    folder({ path: places.hooksFolder, why: "repos, a file each" }),
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
    privateKey({ path: places.masterKey, type: "ed25519", why: "signs the orders of server-update" }),
    publicKey({ path: `${places.masterKey}.pub`, of: places.masterKey, why: "goes into the slaves' slave.yml" }),
    folder({ path: places.fleetState, holds: "data", why: "what should run on the slaves" }),
    ...unitOf(facts, "hook-server.socket", "holds the address, also while the server restarts"),
    ...unitOf(facts, "hook-server.service", "runs hook-server, with few powers"),
    ...unitOf(facts, "build@.service", "builds one repo; for those that no webhook reaches"),
    ...unitOf(facts, "build@.timer", "… every five minutes"),
    ...unitOf(facts, "logs-rotate@.service", "keeps one repo's log small"),
    ...unitOf(facts, "logs-rotate@.timer", "… every hour"),
    ...unitOf(facts, "server-update.service", "brings slaves along that were down; off until you want it"),
    ...unitOf(facts, "server-update.timer", "… every few minutes: systemctl enable --now server-update.timer"),
    // switched on for one repo each
    read(["build@*", "logs-rotate@*", "server-update*"], "systemd reads the units that changed"),
    ...(facts.nginx
      ? [file({ path, text: template("nginx-hooks.conf"), why: "nginx is here, and hands webhooks over" })]
      : []),
  ];
}

/** Repos whose account is not there, as after a restore: hook-server refuses to start with them. */
export function withoutAccount({ repos, accounts }: Facts): string[] {
  return repos.filter(({ user }) => user !== undefined && !accounts.has(user)).map(({ repo }) => repo);
}

/** The service on, and running the files that are there now. */
export const hookServerRuns = (facts: Facts): Item =>
  running(["hook-server.socket", "hook-server.service"], "on, and running the files that are here", [
    scriptFile(facts, "hook-server"),
  ]);

/** The template's list with its examples as comments: a fresh server tells no slaves. */
export function emptyList(template: string): string {
  return template.replace(/^(?=[^#\s])/gm, "# ");
}

export interface AppOptions {
  app: string;
  server: string;
  key: string;
  user: string | undefined;
}

/** `setup app NAME`: an account, a deploy directory, the first install, and launchfit as a service. */
export function planApp(facts: Facts, options: AppOptions): Plan {
  const { app, server, key } = options;
  if (!isAppName(app)) throw new UsageError(`"${app.slice(0, 200)}" is not an app name`);
  if (!/^https?:\/\/|^file:\/\//.test(server))
    throw new UsageError(`--server: "${server}" is not an https, http or file URL`);
  if (URL.canParse(server) && new URL(server).password !== "")
    throw new UsageError(
      "--server: a password in a URL can be read by others; put it into .netrc in the home of the app's account",
    );
  if (!/^(?:0x)?[0-9A-Fa-f]{40,64}$/.test(key))
    throw new UsageError("--key: a whole fingerprint is 40 hex digits, without spaces");
  const { items, dir } = appItems(facts, options, [server, "--key", key]);
  return {
    ...{ needs: ["flock"], scripts: ["launchfit"], items },
    notes: [{ title: "Next", lines: [`settings of the app: ${dir}/launchify.yml`, `launchfit status --dir ${dir}`] }],
  };
}

/** @param args launchfit's for the first install; none: it is there already. */
export function appItems(
  facts: Facts,
  { app, user: given }: Pick<AppOptions, "app" | "user">,
  args?: string[],
): { items: Item[]; dir: string } {
  const purpose = `app ${app}`;
  const user = chooseAccount({ what: purpose, derived: unixName(app), given }, facts.accounts);
  // launchfit@.service knows the folder by the user's name
  const dir = join("/srv", user);
  const why = "the app runs as a user of its own";
  const limits = `/etc/systemd/system/launchfit@${user}.service.d/limits.conf`;
  const items = [
    ...commands(facts, ["launchfit"]),
    ...unitOf(facts, "launchfit@.service", "keeps it running and up to date"),
    account({ name: user, home: dir, purpose, why }),
    folder({ path: dir, owner: user, holds: "data", why: "its deploy directory" }),
    ...(args ? [firstInstall(scriptFile(facts, "launchfit"), dir, user, args)] : []),
    file({
      path: limits,
      text: () => limitsFile(scriptFile(facts, "launchfit"), dir, user),
      why: "app.limits of its launchify.yml",
    }),
    running([`launchfit@${user}.service`], "on, and running the files that are here", [
      scriptFile(facts, "launchfit"),
      limits,
    ]),
  ];
  return { items, dir };
}

/** The part of the app's unit in which its deploy directory has a word. @throws {Failure} for a wrong launchify.yml */
async function limitsFile(script: string, dir: string, user: string): Promise<string> {
  let limits: Limits = {};
  if (await exists(join(dir, "launchify.yml"))) {
    const account = as(await lookUpUser(user), { cwd: dir });
    const { ok, stdout, stderr } = await $({ ...account, nothrow: true })`${script} config --json --dir ${dir}`;
    if (!ok) throw new Failure(cleanText(stderr.trim()));
    const keys = JSON.parse(stdout) as { name: string; value?: unknown }[];
    limits = checkValue(keys.find(({ name }) => name === "app.limits")?.value ?? {}, limitsSchema);
  }
  return `${["# app.limits of launchify.yml, as setup app found it", "[Service]", ...limitLines(limits)].join("\n")}\n`;
}

/** The first install, as the app's user. */
function firstInstall(script: string, dir: string, user: string, args: string[]): Item {
  return {
    what: `as ${user} in ${dir}: ${script} ${args.join(" ")}`,
    why: "the first install; everything must be signed by that key",
    needs: ["setpriv"],
    live: [`runuser -u ${user} -- env -C ${dir} ${script} ${args.join(" ")}`],
    look: async () => ((await exists(join(dir, "current"))) ? "ready" : "make"),
    async make() {
      await $(as(await lookUpUser(user), { cwd: dir, timeout: 1_800_000 }))`${script} ${args}`;
    },
  };
}

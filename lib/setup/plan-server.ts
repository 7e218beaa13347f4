import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { account, chooseAccount, commentFor } from "./accounts.ts";
import { file, folder } from "./file-steps.ts";
import { readRemote } from "./forge.ts";
import { emptyHooks } from "./hooks-file.ts";
import { publicKey, secret, signingKey } from "./key-steps.ts";
import { type BusClient, masterOnBus, slaveOnBus } from "./plan-bus.ts";
import { link, renewed, scriptSteps, started, unit } from "./service-steps.ts";
import { type Facts, type Note, places, type Plan, type Step, versions } from "./step.ts";
import { templates } from "./templates.ts";

/** `setup server` and `setup slave`: hook-server and all that it starts, and slave-server. */

/** `setup server`: hook-server and all that it starts. */
export function planServer(facts: Facts, bus?: BusClient): Plan {
  // a service that cannot read its configuration does not start
  if (facts.hooksProblem !== undefined) throw new UsageError(facts.hooksProblem);
  const needs = ["git", "flock", "setpriv", "rsync", "ssh", "ssh-keygen"];
  const steps: Step[] = [
    ...serverScripts(facts, needs),
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
    ...serverUnits(facts),
    ...(bus ? masterOnBus(bus) : []),
  ];
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

/** All scripts that are there, since a server runs most of them. */
function serverScripts(facts: Facts, needs: readonly string[]): Step[] {
  const names = new Set(facts.scripts.keys());
  for (const needed of ["hook-server", "build", "release", "server-update", "logs"])
    names.add(needed);
  return scriptSteps(facts, [...names].sort(), needs);
}

function serverUnits({ nginx }: Facts): Step[] {
  const path = "/etc/nginx/snippets/boatyard-hooks.conf";
  const why = "nginx is here, and hands webhooks over";
  return [
    signingKey({
      ...{ path: places.masterKey, mode: 0o600 },
      why: "signs the orders of server-update",
    }),
    publicKey({
      ...{ path: `${places.masterKey}.pub`, mode: 0o644, of: places.masterKey },
      why: "goes into the slaves' slave.yml",
    }),
    folder({
      ...{ path: places.fleetState, mode: 0o755, holds: "data" },
      why: "what should run on the slaves",
    }),
    unit("hook-server.socket", "holds the address, also while the server restarts"),
    unit("hook-server.service", "runs hook-server, with few powers"),
    unit("build@.service", "builds one repo; for those that no webhook reaches"),
    unit("build@.timer", "… every five minutes"),
    unit("logs-rotate@.service", "keeps one repo's log small"),
    unit("logs-rotate@.timer", "… every hour"),
    unit("server-update.service", "brings slaves along that were down; off until you want it"),
    unit("server-update.timer", "… every few minutes: systemctl enable --now server-update.timer"),
    ...(nginx ? [file({ path, text: templates["nginx-hooks.conf"], mode: 0o644, why })] : []),
  ];
}

const hookServer = ["hook-server.socket", "hook-server.service"];
/** Switched on for one repo each. */
const instances = ["build@*", "logs-rotate@*", "server-update*"];

/** What an upgrade replaces on a server. */
export function renewedServer(facts: Facts): Step[] {
  return [
    ...serverScripts(facts, []),
    ...serverUnits(facts),
    ...renewed(hookServer, ["hook-server"], instances),
  ];
}

/** Repos of hooks.yml whose account is not there, as after a restore: hook-server refuses to start with them. */
export function withoutAccount({ repos, accounts }: Facts): string[] {
  return repos
    .filter(({ user }) => user !== undefined && !accounts.has(user))
    .map(({ repo }) => repo);
}

/** The service on, and running the files that are there now. */
export function hookServerStarted(): Step[] {
  return started(hookServer, ["hook-server"], instances);
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

export interface SlaveOptions {
  base: string | undefined;
  user: string | undefined;
  secretFile: string | undefined;
  /** The master's public key, which makes a secret unnecessary. */
  masterKey?: string | undefined;
  /** It connects out, and opens no port. */
  bus?: BusClient | undefined;
}

/** `setup slave`: slave-server and slave-activate, with an account that owns nothing else. */
export function planSlave(facts: Facts, options: SlaveOptions): Plan {
  const user = chooseAccount(
    { what: "slave", derived: "slave", given: options.user },
    facts.accounts,
  );
  const there = facts.accounts.get(user);
  const home = there?.home ?? "/srv/slave";
  // a person's home, named on purpose, keeps its mode
  const own = there === undefined || there.comment === commentFor("slave");
  const base = options.base === undefined ? undefined : readRemote(options.base).url;
  const { masterKey, secretFile, bus } = options;
  const units = facts.slaveSocket || !bus ? slaveServer : slaveServer.slice(1);
  if (masterKey !== undefined && !/^ed25519:[A-Za-z0-9_-]{43}$/.test(masterKey))
    throw new UsageError(
      `--master-key: that is not a public key; it stands in ${places.masterKey}.pub on the master`,
    );
  if (bus && masterKey === undefined && facts.slave === undefined)
    throw new UsageError(
      `--bus needs --master-key: only signed orders are taken from a bus; the key stands in ${places.masterKey}.pub on the master`,
    );
  const hasSecret = masterKey === undefined || secretFile !== undefined;
  const trusted = [
    ...(masterKey === undefined
      ? []
      : [
          "# The master signs its orders with the key that belongs to this one.",
          `master_key: ${masterKey}`,
        ]),
    ...(hasSecret
      ? [
          "# The master signs its requests with the same secret.",
          `secret_file: ${places.slaveSecret}`,
        ]
      : []),
  ].join("\n");
  const settings = `# Made by setup slave; templates/slave.yml of Boatyard shows all that can be set here.
# What the master's list calls this machine.
name: ${JSON.stringify(facts.hostname)}

${trusted}

# REPO is cloned from BASE/REPO.git, and put at ~/repos/REPO.
base: ${JSON.stringify(base ?? "https://github.com/aiegoo/")}

# Which repos may be asked for; * stands for anything. Default: all.
# allow: [site, "app-*"]

# Runs in the new tree once it is in place; if it fails, the old one is put back.
# after: make -s
`;
  const lines = [
    `add a line to ${places.list}: ${facts.hostname}`,
    `put the secret of ${places.slaveSecret} into ${places.listSecret} (or that one here, with --secret-file)`,
    `server-update --status REPO --secret-file ${places.listSecret}`,
  ];
  // it is the master's already
  if (secretFile !== undefined) lines.splice(1, 1);
  else if (!hasSecret) lines.splice(1, 2, "server-update --status");
  if (bus) {
    const groups = bus.groups.map((group) => ` under [${group}]`).join("");
    lines.splice(0, 3, `add a line to ${places.list}${groups}: bus://${facts.hostname}`);
  }
  return {
    ...versions(facts.builds),
    steps: [
      ...slaveScripts(facts, ["git", "flock"]),
      account({
        ...{ name: user, home, system: true, purpose: "slave" },
        why: "fetches and switches the repos, and owns nothing else",
      }),
      ...(own
        ? [
            folder({
              ...{ path: home, mode: 0o755, owner: user, holds: "data" },
              why: "its repos, which a web server may read",
            }),
          ]
        : []),
      configFolder(),
      ...(hasSecret
        ? [
            secret({
              ...{ path: places.slaveSecret, mode: 0o600, owner: user, from: secretFile },
              why: "requests must be signed with it; the master has the same",
            }),
          ]
        : []),
      ownFile(places.slave, settings, "where repos come from, and which; yours from now on"),
      ...(bus ? slaveOnBus(bus, user) : []),
      ...slaveUnits(user, home, units),
      ...started(units, services),
    ],
    notes: [{ title: "On the master", lines }],
  };
}

const slaveServer = ["slave-server.socket", "slave-server.service"];
const services = ["slave-server", "slave-activate"];

function slaveScripts(facts: Facts, needs: readonly string[]): Step[] {
  return [
    ...scriptSteps(facts, [...services, "setup", "logs"], needs),
    link({
      path: "/bin/slave-activate",
      to: join(places.scripts, "slave-activate.mjs"),
      why: "also at this path, for callers without a PATH",
    }),
  ];
}

/** Its units, for an account that may have another name and home. */
function slaveUnits(user: string, home: string, units: readonly string[]): Step[] {
  const hasSocket = units === slaveServer;
  const service = templates["slave-server.service"]
    .replace(/^Requires=slave-server.socket\n/m, (line) => (hasSocket ? line : ""))
    .replace(/^User=slave$/m, `User=${user}`)
    .replaceAll("/srv/slave", home);
  const socket = unit("slave-server.socket", "holds the address, also while the server restarts");
  return [
    ...(hasSocket ? [socket] : []),
    unit("slave-server.service", "runs slave-server, with no powers", service),
  ];
}

/** What an upgrade replaces on a slave. */
export function renewedSlave(facts: Facts, user: string): Step[] {
  const home = facts.accounts.get(user)?.home ?? "/srv/slave";
  const units = facts.slaveSocket === false ? slaveServer.slice(1) : slaveServer;
  return [
    ...slaveScripts(facts, []),
    ...slaveUnits(user, home, units),
    ...renewed(units, services),
  ];
}

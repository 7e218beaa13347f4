import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { commentFor } from "../exec/users.ts";
import { account, data, file, folder, type Item, link } from "../items/items.ts";
import { running } from "../items/services.ts";
import { chooseAccount } from "./accounts.ts";
import { readRemote } from "./forge.ts";
import { secret } from "./keys.ts";
import { configFolder, type Facts, places, type Plan } from "./machine.ts";
import { type BusClient, slaveOnBus } from "./plan-bus.ts";
import { commands, scriptFile, unitOf } from "./scripts.ts";
import { template } from "../files/templates.ts";

export interface SlaveOptions {
  base: string | undefined;
  user: string | undefined;
  secretFile: string | undefined;
  /** The master's public key, which makes a secret unnecessary. */
  masterKey?: string | undefined;
  /** It connects out, and opens no port. */
  bus?: BusClient | undefined;
}

/**
 * `setup slave`: slave-server, with an account that owns nothing else. A slave.yml there is a person's: a key and a bus
 * get files of their own in slave.d.
 */
export function planSlave(facts: Facts, options: SlaveOptions): Plan {
  if (facts.slave !== undefined && (options.user ?? facts.slave) !== facts.slave)
    throw new UsageError(
      `--user: slave-server runs as ${facts.slave}, whose repos and secret another could not use; ` +
        "leave --user out, or first: setup remove slave",
    );
  const user = chooseAccount({ what: "slave", derived: "slave", given: options.user ?? facts.slave }, facts.accounts);
  const there = facts.accounts.get(user);
  const home = there?.home ?? "/srv/slave";
  // a person's home, named on purpose, keeps its mode
  const own = there === undefined || there.comment === commentFor("slave");
  const base = options.base === undefined ? undefined : readRemote(options.base).url;
  const { masterKey, secretFile, bus } = options;
  const { slaveSettings: settings, slaveMore: more = "" } = facts;
  if (masterKey !== undefined && !/^ed25519:[A-Za-z0-9_-]{43}$/.test(masterKey))
    throw new UsageError(`--master-key: that is not a public key; it stands in ${places.masterKey}.pub on the master`);
  if (bus && masterKey === undefined && !/^master_key:/m.test(`${settings ?? ""}\n${more}`))
    throw new UsageError(
      "--bus needs --master-key: only signed orders are taken from a bus; " +
        `the key stands in ${places.masterKey}.pub on the master`,
    );
  const hasSecret =
    secretFile !== undefined ||
    (settings === undefined ? masterKey === undefined : /^secret_file:.*\bslave\.secret\b/m.test(settings));
  const isOnBus = bus !== undefined || /^bus:/m.test(`${settings ?? ""}\n${more}`);
  // one that connects out has no socket, unless it had one before
  const units = [...(facts.slaveSocket || !isOnBus ? ["slave-server.socket"] : []), "slave-server.service"];
  const activate = scriptFile(facts, "slave-activate");
  return {
    ...{ warnings: settingsWarnings(facts, options), needs: ["git", "flock"] },
    scripts: ["slave-server", "slave-activate"],
    items: [
      ...commands(facts, ["slave-server", "slave-activate"]),
      link({ path: "/bin/slave-activate", to: activate, why: "at this path, for callers without a PATH" }),
      ...(own
        ? [
            account({
              ...{ name: user, home, purpose: "slave" },
              why: "fetches and switches the repos, and owns nothing else",
            }),
            folder({
              ...{ path: home, owner: user, holds: "data" },
              why: "its repos, which a web server may read",
            }),
          ]
        : []),
      configFolder(),
      ...(hasSecret
        ? [
            secret({
              ...{ path: places.slaveSecret, owner: user, from: secretFile },
              why: "requests must be signed with it; the master has the same",
            }),
          ]
        : []),
      file({
        ...{ path: places.slave, once: true },
        text: newSettings(facts.hostname, { base, masterKey, hasSecret }),
        why: "where repos come from, and which; yours from now on",
      }),
      folder({ path: places.slaveFolder, holds: "data", why: "what setup adds to it, a file each" }),
      ...(settings !== undefined && masterKey !== undefined ? trust(settings, masterKey) : []),
      ...(bus ? slaveOnBus(bus, user, !/^bus:/m.test(settings ?? "")) : []),
      ...slaveUnits(facts, { user, home, units }),
      running(units, "on, and running the files that are here", [
        scriptFile(facts, "slave-server"),
        places.slave,
        ...["bus.yml", "master.yml"].map((name) => join(places.slaveFolder, name)),
      ]),
    ],
    notes: [{ title: "On the master", lines: onMaster(facts.hostname, hasSecret, options) }],
  };
}

/** slave.yml, as it is made when there is none. */
function newSettings(
  hostname: string,
  { base, masterKey, hasSecret }: { base: string | undefined; masterKey: string | undefined; hasSecret: boolean },
): string {
  const trusted = [
    ...(masterKey === undefined ? [] : [keyLines(masterKey)]),
    ...(hasSecret
      ? ["# The master signs its requests with the same secret.", `secret_file: ${places.slaveSecret}`]
      : []),
  ].join("\n");
  return `# Made by setup slave; templates/slave.yml of Boatyard shows all that can be set here.
# What the master's list calls this machine.
name: ${JSON.stringify(hostname)}

${trusted}

# REPO is cloned from BASE/REPO.git, and put at ~/repos/REPO.
base: ${JSON.stringify(base)}

# Which repos may be asked for; * stands for anything. Default: all.
# allow: [site, "app-*"]

# Runs in the new tree once it is in place; if it fails, the old one is put back.
# after: make -s
`;
}

function keyLines(masterKey: string): string {
  return `# The master signs its orders with the key that belongs to this one.\nmaster_key: ${masterKey}`;
}

/** The master's key beside a slave.yml that is there. @throws {UsageError} when that names another */
function trust(settings: string, masterKey: string): Item[] {
  const others = keysIn(settings);
  if (others.includes(masterKey)) return [];
  if (/^master_key:/m.test(settings))
    throw new UsageError(
      `${places.slave} has another master_key; to take both, write there: master_key: ` +
        `[${[...others, masterKey].join(", ")}]`,
    );
  const path = join(places.slaveFolder, "master.yml");
  return [data(file({ path, text: `${keyLines(masterKey)}\n`, why: "whose signed orders it takes" }))];
}

/** The keys in a slave.yml, in one line or several; one in a comment is not trusted. */
function keysIn(settings: string): string[] {
  return settings.replace(/(?:^|\s)#.*/gm, "").match(/ed25519:[A-Za-z0-9_-]{43}/g) ?? [];
}

/** What the command line asks for and a slave.yml that is there does not say. */
function settingsWarnings({ slaveSettings: settings }: Facts, { base, secretFile }: SlaveOptions): string[] {
  if (settings === undefined) return [];
  const missing = [
    ...(base === undefined || settings.includes(base) ? [] : [`base is not ${base}`]),
    ...(secretFile === undefined || /^secret_file:/m.test(settings)
      ? []
      : [`secret_file is not ${places.slaveSecret}`]),
  ];
  return missing.map((what) => `${places.slave} stays as it is: ${what} there; edit the file if it should be`);
}

/** What is left to do on the master. */
function onMaster(hostname: string, hasSecret: boolean, options: SlaveOptions): string[] {
  const { bus, secretFile } = options;
  if (bus) return [`add a line to ${places.list}: bus://${hostname}`];
  return [
    `add a line to ${places.list}: ${hostname}`,
    // one that was copied here is the master's already
    ...(hasSecret && secretFile === undefined
      ? [`put the secret of ${places.slaveSecret} into ${places.listSecret} (or that one here, with --secret-file)`]
      : []),
    hasSecret ? `server-update --status REPO --secret-file ${places.listSecret}` : "server-update --status",
  ];
}

/** Its units, for an account that may have another name and home. */
function slaveUnits(
  facts: Facts,
  { user, home, units }: { user: string; home: string; units: readonly string[] },
): Item[] {
  const hasSocket = units.includes("slave-server.socket");
  const service = template("slave-server.service")
    .replace(/^Requires=slave-server.socket\n/m, (line) => (hasSocket ? line : ""))
    .replace(/^User=slave$/m, `User=${user}`)
    // a person's home: that of others stays hidden
    .replace(/^ProtectHome=yes$/m, (line) =>
      /^\/(?:home|root)\//.test(home) ? `ProtectHome=tmpfs\nBindPaths=${home}` : line,
    )
    .replaceAll("/srv/slave", home);
  const why = "holds the address, also while the server restarts";
  return [
    ...(hasSocket ? unitOf(facts, "slave-server.socket", why) : []),
    ...unitOf(facts, "slave-server.service", "runs slave-server, with no powers", service),
  ];
}

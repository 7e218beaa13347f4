import { readFile } from "node:fs/promises";
import { checkBusUrl, nameOnBus } from "../bus/address.ts";
import { isNkey, keyOfSeed, newSeed, nkeyOf } from "../bus/nkey.ts";
import { type BusUser, formatUser, formatUsers, parseUsers } from "../bus/users.ts";
import { UsageError } from "../core/errors.ts";
import { didYouMean } from "../core/names.ts";
import { data, edit, file, folder } from "./file-steps.ts";
import { busSeed, certificate, privateKey, secret } from "./key-steps.ts";
import { scriptSteps } from "./scripts.ts";
import { busReloaded, disable, renewed, type Service, started, unit } from "./service-steps.ts";
import { commandLine, type Facts, inRoot, type Note, places, type Plan, type Step } from "./step.ts";
import { template } from "../files/templates.ts";

/** `setup bus`: the machine that runs nats-server, who may use it, and what a slave or a master needs to do so. */

export interface BusOptions {
  /** The name or IP address that others connect to. */
  address: string | undefined;
  listen: string;
  /** The PEM of a certificate, and the file of its key; without them one is made. */
  certificate?: { text: string; keyFile: string } | undefined;
}

export function planBus(facts: Facts, options: BusOptions): Plan {
  const { address = facts.hostname, listen, certificate: given } = options;
  if (!/^[A-Za-z0-9.:-]+$/.test(address)) throw new UsageError(`--address: "${address}" is not the name of a machine`);
  const port = /^[^\s"\\]+:(\d{1,5})$/.exec(listen)?.[1];
  if (port === undefined || Number(port) > 65_535)
    throw new UsageError(`--listen: "${listen}" is not ADDRESS:PORT; write 0.0.0.0:4222`);
  const key = { path: places.busKey, owner: "nats", why: "only the bus reads it" };
  const cert = { path: places.busCertificate, why: "who connects knows the bus by it" };
  const conf = template("nats.conf").replace("0.0.0.0:4222", () => listen);
  const url = `tls://${address.includes(":") ? `[${address}]` : address}:${port}`;
  const flags = given ? `--bus ${url}` : `--bus ${url} --ca bus.crt`;
  return {
    needs: ["nats-server"],
    steps: [
      ...scriptSteps(facts, ["setup"]),
      folder({ path: places.config, why: "configuration and secrets" }),
      folder({
        ...{ path: places.busState, mode: 0o700, owner: "nats", holds: "data" },
        why: "orders and reports",
      }),
      ...(given
        ? [file({ ...cert, text: given.text }), secret({ ...key, from: given.keyFile })]
        : [privateKey({ ...key, type: "P-256" }), certificate({ ...cert, key: key.path, address })]),
      file({
        ...{ path: places.busUsers, text: noUsers(), once: true },
        why: "who may use the bus, and for what",
      }),
      file({
        ...{ path: places.bus, text: conf, once: true },
        why: "address, TLS, limits; yours from now on",
      }),
      ...unit(facts, "boatyard-bus.service", runs),
      // Debian's own starts with the package, at the same port and for everybody on this machine
      { ...disable(["nats-server.service"]), undo: undefined },
      ...started(bus),
      busReloaded(),
    ],
    notes: [
      ...(given ? [] : [{ title: copyIt, lines: ["bus.crt, which --ca names there"] }]),
      { title: "On the master", lines: [`setup server ${flags}`] },
      { title: "On each slave", lines: [`setup slave ${flags} --master-key ed25519:… --base https://…`] },
      { title: "Then here, for each of them", lines: ["setup bus add NAME --nkey U…"] },
    ],
  };
}

const copyIt = `Copy ${places.busCertificate} to the master and the slaves, as`;
const runs = "runs nats-server, with no powers";
const bus: Service = { units: ["boatyard-bus.service"] };

/** What an upgrade replaces on the machine of a bus. */
export function renewedBus(facts: Facts): Step[] {
  const [reload] = renewed(bus);
  return [...scriptSteps(facts, ["setup"]), ...unit(facts, "boatyard-bus.service", runs), reload];
}

/** Let somebody use the bus, or change what it may. @throws {UsageError} */
export function planBusUser(facts: Facts, user: BusUser): Plan {
  const { name, nkey, role } = user;
  const known = usersOf(facts);
  if (!/^[A-Za-z0-9_][A-Za-z0-9._:-]{0,252}$/.test(name)) throw new UsageError(`"${name}" cannot be a slave's name`);
  if (!isNkey(nkey))
    throw new UsageError(
      "--nkey: that is not the public key of a NATS user: U and 55 letters and digits, as setup slave --bus prints it",
    );
  if (role === "slave" && nameOnBus(name) === "master")
    throw new UsageError(
      'a slave cannot be called "master"; give it another by name: under bus: ' +
        "in its slave.yml, or, if it is the master, add --role master",
    );
  const other = known.find((each) => each.nkey === nkey && nameOnBus(each.name) !== nameOnBus(name));
  if (other) throw new UsageError(`--nkey: ${other.name} has that key; each needs its own`);
  const why = "it may use the bus, for its own";
  return { steps: changed(`${role} ${name}`, why, (text) => withUser(text, user)), notes: [] };
}

/** Do not let it in any more. @throws {UsageError} when there is none of that name */
export function planBusUserRemoved(facts: Facts, name: string): Plan {
  const names = usersOf(facts).map((each) => each.name);
  if (!names.some((each) => each.toLowerCase() === name.toLowerCase()))
    throw new UsageError(`the bus knows no ${name}${didYouMean(name, names)}`);
  const why = "it may not use the bus any more";
  return {
    steps: changed(`without ${name}:`, why, (text) => withoutUser(text, name)),
    notes: [{ title: "On the master", lines: [`take bus://${name} off ${places.list}`] }],
  };
}

/** A list of users with one that nobody can be: a bus with an empty list lets everybody in. */
function noUsers(): string {
  const key = keyOfSeed(newSeed());
  const nkey = key ? nkeyOf(key) : "";
  const none = '{ deny: [">"] }';
  const why = "nobody: with no users at all, everybody could";
  const nobody = `  { nkey: ${nkey}, permissions: { publish: ${none}, subscribe: ${none} } } # ${why}\n`;
  const head = "# Who may use the bus; setup bus add and setup bus remove change it, a line for each.\n";
  return head + formatUsers([], nobody);
}

/** The end of the list of one role, before which a new user's line goes. */
function endOf(role: BusUser["role"]): RegExp {
  return new RegExp(`(?<=^${role}s: *\\[\\s*\\n(?:(?! *\\])[^\\n]*\\n)*)(?= *\\])`, "m");
}

/** The list with a user, instead of one of that name. Pure. */
function withUser(text: string, user: BusUser): string {
  if (text.includes(`\n${formatUser(user)}`)) return text;
  return withoutUser(text, user.name).replace(endOf(user.role), () => formatUser(user));
}

/** The list without a user. Pure. */
function withoutUser(text: string, name: string): string {
  return text.replace(/^.*\n/gm, (line) =>
    parseUsers(line).some((user) => user.name.toLowerCase() === name.toLowerCase()) ? "" : line,
  );
}

/** A change of who may use the bus. */
function changed(what: string, why: string, change: (text: string) => string): Step[] {
  return [edit({ path: places.busUsers, what, why, change }), busReloaded()];
}

function usersOf({ busUsers }: Facts): BusUser[] {
  if (busUsers === undefined) throw new UsageError(`no bus is set up here (${places.busUsers}); run: setup bus`);
  const bad = (["master", "slave"] as const).find((role) => !endOf(role).test(busUsers));
  if (bad)
    throw new UsageError(
      `${places.busUsers} has no lines "${bad}s: [" and then "]", where users are added; write it so`,
    );
  return parseUsers(busUsers);
}

/** How a slave or a master is to reach a bus. */
export interface BusClient {
  url: string;
  /** The PEM of its authority. */
  ca: string | undefined;
}

/** A key of its own for the bus, the bus's authority, and `bus:` in slave.yml. @throws {UsageError} */
export function slaveOnBus(client: BusClient, user: string): Step[] {
  const text = `\n# It connects out, to a bus.\nbus: { ${settingsOf(client, "/etc/boatyard/bus")} }\n`;
  return [
    ...clientFiles(client, "/etc/boatyard/bus", user),
    edit({
      ...{ path: places.slave, what: "bus:" },
      change: (now) => (/^bus:/m.test(now) ? now : now + text),
      why: "where it takes its orders from",
    }),
  ];
}

/** The same for a master, with its bus.yml. @throws {UsageError} */
export function masterOnBus(client: BusClient): Step[] {
  const settings = settingsOf(client, "/etc/server-update/bus").replaceAll(/, (?=\w+_file)/g, "\n");
  const words = "# Made by setup server: where server-update finds the slaves that its list names bus://NAME.";
  const text = `${words}\n${settings}\n`;
  return [
    ...clientFiles(client, "/etc/server-update/bus", "root"),
    file({
      ...{ path: "/etc/server-update/bus.yml", text, once: true },
      why: "where the bus is; yours from now on",
    }),
  ];
}

function settingsOf({ url, ca }: BusClient, path: string): string {
  checkBusUrl(url, "--bus");
  return `url: ${JSON.stringify(url)}, seed_file: ${path}.seed${ca === undefined ? "" : `, ca_file: ${path}-ca.pem`}`;
}

function clientFiles({ ca }: BusClient, path: string, owner: string): Step[] {
  const why = "who vouches for the bus";
  return [
    busSeed({ path: `${path}.seed`, owner, why: "the bus knows it by this; for nothing else" }),
    ...(ca === undefined ? [] : [data(file({ path: `${path}-ca.pem`, text: ca, why }))]),
  ];
}

/** What is left to do on the machine of the bus, once the key is there. */
export async function busNotes(root: string, seed: string, words: readonly string[]): Promise<Note[]> {
  const text = await readFile(await inRoot(root, seed), "utf8").catch(() => "");
  const key = keyOfSeed(text.trim());
  if (!key) return [];
  const [name = "", ...more] = words;
  const line = commandLine("setup", "bus", "add", name, "--nkey", nkeyOf(key), ...more);
  return [{ title: "On the machine of the bus", lines: [line] }];
}

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { checkBusUrl, nameOnBus } from "../bus/address.ts";
import { isNkey, keyOfSeed, newSeed, nkeyOf } from "../bus/nkey.ts";
import { type BusUser, formatUser, formatUsers, parseUsers } from "../bus/users.ts";
import { cleanLine } from "../core/clean.ts";
import { Failure, UsageError } from "../core/errors.ts";
import { didYouMean } from "../core/names.ts";
import { $ } from "../exec/exec.ts";
import { data, file, folder, inRoot, type Item } from "../items/items.ts";
import { isOlder, off, running, systemd, unitState } from "../items/services.ts";
import { busSeed, certificate, privateKey, secret } from "./keys.ts";
import { configFolder, type Facts, filesIn, type Note, places, type Plan } from "./machine.ts";
import { commands, unitOf } from "./scripts.ts";
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
    items: [
      ...commands(facts, []),
      configFolder(),
      folder({
        ...{ path: places.busState, mode: 0o700, owner: "nats", holds: "data" },
        why: "orders and reports",
      }),
      ...(given
        ? [data(file({ ...cert, text: given.text })), secret({ ...key, from: given.keyFile })]
        : [
            privateKey({ ...key, type: "P-256" }),
            certificate({ ...cert, key: key.path, address: options.address, hostname: facts.hostname }),
          ]),
      folder({ path: places.busUsersFolder, holds: "data", why: "who may use the bus, a file each" }),
      data(busUsers()),
      file({
        ...{ path: places.bus, text: conf, once: true },
        why: "address, TLS, limits; yours from now on",
      }),
      ...unitOf(facts, service, "runs nats-server, with no powers"),
      // Debian's own starts with the package, at the same port and for everybody on this machine
      off(["nats-server.service"], "the bus has its port"),
      running([service], "on now, and at every boot"),
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
const service = "boatyard-bus.service";

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
  const path = userFile(name);
  const entry = file({ path, text: formatUser(user), why: "it may use the bus, for its own" });
  return { items: [entry, busUsers(), busReloaded()], notes: [] };
}

/** Do not let it in any more. @throws {UsageError} when there is none of that name */
export function planBusUserRemoved(facts: Facts, name: string): Plan {
  const names = usersOf(facts).map((each) => each.name);
  if (!names.some((each) => each.toLowerCase() === name.toLowerCase()))
    throw new UsageError(`the bus knows no ${name}${didYouMean(name, names)}`);
  const { back, ...entry } = file({ path: userFile(name), text: "", why: "it may not use the bus any more" });
  const gone: Item = {
    ...{ ...entry, what: `without ${entry.what}` },
    look: async (root) => ((await back?.isThere(root)) ? "replace" : "ready"),
    make: async (root) => void (await back?.remove(root)),
  };
  return {
    items: [gone, busUsers(), busReloaded()],
    notes: [{ title: "On the master", lines: [`take bus://${name} off ${places.list}`] }],
  };
}

/** Names are one whatever their case. */
const userFile = (name: string) => join(places.busUsersFolder, `${name.toLowerCase()}.conf`);

/** nats-server includes no folder: the list of all users is made whole of their files. */
function busUsers(): Item {
  const text = async (now: string | undefined, root: string) => {
    const files = await filesIn(root, places.busUsersFolder, ".conf");
    const users = parseUsers(files.map((each) => each.text).join(""));
    const none = /^.*# nobody: .*\n/m.exec(now ?? "")?.[0] ?? nobody();
    const head = "# Made by setup bus of the files in nats-users.d: setup bus add and setup bus remove change those.\n";
    return head + formatUsers(users, none);
  };
  return file({ path: places.busUsers, why: "who may use the bus, and for what", text });
}

/** A user that nobody can be: a bus with an empty list lets everybody in. */
function nobody(): string {
  const key = keyOfSeed(newSeed());
  const none = '{ deny: [">"] }';
  const why = "nobody: with no users at all, everybody could";
  return `  { nkey: ${key ? nkeyOf(key) : ""}, permissions: { publish: ${none}, subscribe: ${none} } } # ${why}\n`;
}

/** A bus that has read its files as they are now; its connections stay, but those of users who are gone. */
function busReloaded(): Item {
  const files = [places.bus, places.busUsers, places.busCertificate, places.busKey];
  return {
    what: `systemd: reload ${service}`,
    ...{ why: "it reads its users and its certificate anew", systemd: true, live: [`systemctl reload ${service}`] },
    async look() {
      if ((await unitState(service)).active !== "active") return "ready";
      return (await isOlder(service, "StateChangeTimestamp", files)) ? "make" : "ready";
    },
    async make() {
      const problem = await busProblem();
      if (problem !== undefined)
        throw new Failure(`nats-server does not accept ${places.bus}: ${problem}; correct it, and run this again`);
      await systemd(["reload"], [service]);
    },
  };
}

/** What nats-server finds wrong with the bus's files; undefined: nothing. */
export async function busProblem(): Promise<string | undefined> {
  const { ok, stderr } = await $({ nothrow: true })`nats-server -t -c ${places.bus}`;
  return ok ? undefined : cleanLine(stderr.trim().split("\n").at(-1) ?? "");
}

function usersOf({ busUsers: users }: Facts): BusUser[] {
  if (users === undefined) throw new UsageError(`no bus is set up here (${places.busUsers}); run: setup bus`);
  return parseUsers(users.lines);
}

/** How a slave or a master is to reach a bus. */
export interface BusClient {
  url: string;
  /** The PEM of its authority. */
  ca: string | undefined;
}

/** A key of its own for the bus, the bus's authority, and `bus:` in slave.d. @throws {UsageError} */
export function slaveOnBus(client: BusClient, user: string, isOurs: boolean): Item[] {
  const words = "# Made by setup slave: it connects out, to a bus.";
  const text = `${words}\nbus: { ${settingsOf(client, "/etc/boatyard/bus")} }\n`;
  const path = join(places.slaveFolder, "bus.yml");
  return [
    ...clientFiles(client, "/etc/boatyard/bus", user),
    ...(isOurs ? [data(file({ path, text, why: "where it takes its orders from" }))] : []),
  ];
}

/** The same for a master, with its bus.yml. @throws {UsageError} */
export function masterOnBus(client: BusClient): Item[] {
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

function clientFiles({ ca }: BusClient, path: string, owner: string): Item[] {
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
  const line = ["setup bus add", name, "--nkey", nkeyOf(key), ...more].join(" ");
  return [{ title: "On the machine of the bus", lines: [line] }];
}

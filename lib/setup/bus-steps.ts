import { X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { isIP } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { keyOfSeed, newSeed, nkeyOf } from "../bus/nkey.ts";
import { type BusUser, formatUser, parseUsers } from "../bus/users.ts";
import { cleanLine } from "../core/clean.ts";
import { Failure, Refused } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { edit, fileRemoved, find, withOwnerLine, write } from "./file-steps.ts";
import { inRoot, systemctl } from "./machine.ts";
import { commandLine, type OwnedPath, places, type Step } from "./step.ts";

/** Steps of the machine that runs a bus: its certificate, its users, and that it has read them. */

/**
 * A certificate that nobody has signed, for ten years: slaves and masters get a copy, and trust it alone.
 * @param address the name or IP address that they connect to
 */
export function certificate(options: OwnedPath & { key: OwnedPath; address: string }): Step {
  const { path, key, address, why } = options;
  const isAddress = isIP(address) !== 0;
  return {
    what: `certificate ${path} for ${address}, with its key ${key.path}`,
    ...{ path, why, needs: ["openssl"] },
    async look(root) {
      const [one, other] = [await inRoot(root, path), await inRoot(root, key.path)];
      const [found, keyFound] = [await find(one, options), await find(other, key)];
      if (!found || found.isEmpty || !keyFound || keyFound.isEmpty) return "make";
      const there = readCertificate(one, await readFile(one));
      if ((isAddress ? there.checkIP(address) : there.checkHost(address)) === undefined)
        throw new Refused(
          `${one} is for ${cleanLine(there.subjectAltName?.replace(/^(?:DNS|IP Address):/, "") ?? "nobody")}, not for ${address}; name that by --address, or remove ${path} for a new one, of which all need a copy`,
        );
      return keyFound.state === "ready" ? found.state : "fix";
    },
    /** The key first: without the certificate both are made anew. */
    async perform(root) {
      const [one, other] = [await inRoot(root, path), await inRoot(root, key.path)];
      const there = await Promise.all([one, other].map((each) => readFile(each).catch(() => "")));
      const [text, keyText] = there.every(({ length }) => length > 0)
        ? there
        : await makeCertificate(address, `${isAddress ? "IP" : "DNS"}:${address}`);
      await write(other, keyText ?? "", key);
      await write(one, text ?? "", options);
    },
    underRoot: () =>
      withOwnerLine(key, "z", ({ owner }) => certificate({ ...options, key: { ...key, owner } })),
    undo: { step: bothRemoved(path, key.path), data: true },
  };
}

function readCertificate(path: string, text: Buffer): X509Certificate {
  try {
    return new X509Certificate(text);
  } catch {
    throw new Refused(
      `${path} is not a certificate; put it right, or remove it for a new one, of which all need a copy`,
    );
  }
}

function bothRemoved(...paths: [string, string]): Step {
  const [one, other] = paths.map((path) => fileRemoved(path)) as [Step, Step];
  return {
    ...one,
    what: `files ${paths.join(" and ")}`,
    look: async (root) => ((await one.look(root)) === "ready" ? await other.look(root) : "remove"),
    async perform(root) {
      await one.perform(root);
      await other.perform(root);
    },
    underRoot: () => [bothRemoved(...paths)],
  };
}

async function makeCertificate(address: string, name: string): Promise<[string, string]> {
  const folder = await mkdtemp(join(tmpdir(), "boatyard-bus-"));
  const [cert, key] = [join(folder, "cert"), join(folder, "key")];
  try {
    const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    const about = ["-subj", `/CN=${address}`, "-addext", `subjectAltName=${name}`];
    await $`openssl req -x509 ${curve} -days 3650 ${about} -keyout ${key} -out ${cert}`;
    return [await readFile(cert, "utf8"), await readFile(key, "utf8")];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A list of users with one that nobody can be: a bus with an empty list lets everybody in. */
export function noUsers(): string {
  const key = keyOfSeed(newSeed());
  const nkey = key ? nkeyOf(key) : "";
  const none = '{ deny: [">"] }';
  return `# Who may use the bus; setup bus add and setup bus remove change it, a line for each.
users: [
  { nkey: ${nkey}, permissions: { publish: ${none}, subscribe: ${none} } } # nobody: with no users at all, everybody could
]
`;
}

/** The list with a user, instead of one of that name. Pure. */
export function withUser(text: string, user: BusUser): string {
  if (text.includes(`\n${formatUser(user)}`)) return text;
  return withoutUser(text, user.name).replace(/^\]$/m, () => `${formatUser(user)}]`);
}

/** The list without a user. Pure. */
export function withoutUser(text: string, name: string): string {
  return text.replace(/^.*\n/gm, (line) =>
    parseUsers(line).some((user) => user.name.toLowerCase() === name.toLowerCase()) ? "" : line,
  );
}

/** A change of who may use the bus. */
export function users(what: string, why: string, change: (text: string) => string): Step {
  return edit({ path: places.busUsers, mode: 0o644, what, why, change });
}

const unit = "boatyard-bus.service";

/** A bus that has read its files as they are now; its connections stay, but those of users who are gone. */
export function busReloaded(): Step {
  const files = [places.bus, places.busUsers, places.busCertificate, places.busKey];
  return {
    what: `systemd: reload ${unit}`,
    ...{ why: "it reads its users and its certificate anew", systemd: true },
    async look() {
      if ((await systemctl("is-active", unit)).stdout.trim() !== "active") return "ready";
      const show = ["show", "--timestamp=us+utc", "--property=StateChangeTimestamp", "--value"];
      const read = timeOf((await systemctl(...show, unit)).stdout);
      const times = files.map((file) =>
        stat(file).then(
          ({ ctimeMs }) => ctimeMs,
          () => 0,
        ),
      );
      return read > Math.max(...(await Promise.all(times))) ? "ready" : "make";
    },
    async perform() {
      const test = await $({ nothrow: true })`nats-server -t -c ${places.bus}`;
      if (!test.ok)
        throw new Failure(
          `nats-server does not accept ${places.bus}: ${cleanLine(test.stderr.trim().split("\n").at(-1) ?? "")}; correct it, and run this again`,
        );
      const { ok, stderr } = await systemctl("reload", unit);
      if (!ok) throw new Failure(`systemctl reload ${unit} failed: ${cleanLine(stderr.trim())}`);
    },
    byHand: () => [commandLine("systemctl", "reload", unit)],
  };
}

/** Milliseconds since 1970 of `Sun 2026-11-22 10:00:00.123456 UTC`; 0: none. */
function timeOf(text: string): number {
  const [, day, time] = /(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d{1,3})?)/.exec(text) ?? [];
  return day === undefined ? 0 : Date.parse(`${day}T${time}Z`);
}

import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { dirname, join } from "node:path";
import { newSeed } from "../bus/nkey.ts";
import { readSecretFile } from "../config/secrets.ts";
import { cleanLine } from "../core/clean.ts";
import { Failure, Refused } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { as, lookUpUser } from "../exec/users.ts";
import { readIfThere } from "../files/files.ts";
import { gitIn } from "../git/git.ts";
import { command, data, file, type FileOptions, inHomeOf, inRoot, type Item } from "../items/items.ts";
import { cloneHint, hostName, knownHost, reasonOf, type Remote, withLines } from "./forge.ts";

/** Secrets and keys, each made once, and what a repo's user gets with them: a checkout. */

type Options = Omit<FileOptions, "text" | "kind" | "once">;

/**
 * A secret: random, 32 bytes in hex.
 * @param from a file that has it already. It is read once, since it may be a pipe: `<(pass show …)`.
 */
export function secret({ from, ...options }: Options & { from?: string | undefined }): Item {
  const closed = { mode: 0o600, kind: "secret", ...options };
  if (from === undefined) return file({ ...closed, once: true, text: () => `${randomBytes(32).toString("hex")}\n` });
  let reading: Promise<string> | undefined;
  const given = () => (reading ??= readSecretFile(from));
  // line ends that editors add do not count
  const text = async (now: string | undefined) =>
    now?.trimEnd() === (await given()).trimEnd() ? (now ?? "") : `${await given()}\n`;
  const item = data(file({ ...closed, text }));
  // one that cannot be taken is said before anything is touched
  return { ...item, look: async (root) => await given().then(() => item.look(root)) };
}

/** A private key in PEM: Ed25519 as `server-update keygen` makes one, or P-256 for TLS. */
export function privateKey({ type, ...options }: Options & { type: "ed25519" | "P-256" }): Item {
  const pair = () =>
    type === "ed25519" ? generateKeyPairSync("ed25519") : generateKeyPairSync("ec", { namedCurve: type });
  const text = () => pair().privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  return file({ mode: 0o600, kind: "key", once: true, ...options, text });
}

/** The seed of a NATS user: how a bus knows this machine. */
export const busSeed = (options: Options): Item =>
  file({ mode: 0o600, kind: "seed", once: true, ...options, text: () => `${newSeed()}\n` });

/** The public half of a private key, as one word. */
export function publicKey({ of, ...options }: Options & { of: string }): Item {
  const text = async (_: unknown, root: string) => {
    const key = await inRoot(root, of);
    const pem = await readIfThere(key);
    if (!pem) return "";
    try {
      return `ed25519:${createPublicKey(pem).export({ format: "jwk" }).x}\n`;
    } catch {
      // the error might quote the key
      throw new Failure(`${key} is not a private key; move it away, and run setup again`);
    }
  };
  return file({ kind: "public key", once: true, ...options, text });
}

/**
 * A certificate that nobody has signed, for ten years: slaves and masters get a copy, and trust it alone.
 * @param address the name or IP address that they connect to; undefined: one that is there keeps its own
 * @param hostname that of a new one then
 * @param key its private key, which is there by then
 */
export function certificate(of: Options & { key: string; address: string | undefined; hostname: string }): Item {
  const { key, address, hostname, ...options } = of;
  const name = address ?? hostname;
  const { path } = options;
  const isAddress = isIP(name) !== 0;
  const text = async (now: string | undefined, root: string) => {
    const keyFile = await inRoot(root, key);
    const keyText = await readIfThere(keyFile);
    if (now) {
      const there = readPem(path, "certificate", () => new X509Certificate(now));
      if (address !== undefined && (isAddress ? there.checkIP(address) : there.checkHost(address)) === undefined)
        throw new Refused(
          `${path} is for ${cleanLine(there.subjectAltName?.replace(/^(?:DNS|IP Address):/, "") ?? "nobody")}, not ` +
            `for ${address}; name that by --address, or remove ${path} for a new one, of which all need a copy`,
        );
      const own = keyText && readPem(key, "private key", () => createPrivateKey(keyText));
      if (own && there.checkPrivateKey(own)) return now;
    }
    if (!keyText) return "";
    const about = ["-subj", `/CN=${name}`];
    const names = ["-addext", `subjectAltName=${isAddress ? "IP" : "DNS"}:${name}`];
    return (await $`openssl req -x509 -key ${keyFile} -days 3650 ${about} ${names}`).stdout;
  };
  const item = data(file({ ...options, kind: "certificate", text }));
  return { ...item, what: `certificate ${path} for ${name}`, needs: ["openssl"] };
}

function readPem<T>(path: string, kind: string, read: () => T): T {
  try {
    return read();
  } catch {
    throw new Refused(`${path} is not a ${kind}; put it right, or remove it for a new one, of which all need a copy`);
  }
}

interface InHome {
  path: string;
  user: string;
  why: string;
  /** What does it on the live system: `setup repo OWNER/NAME`. */
  live: readonly string[];
}

/** An ssh key pair without a passphrase. A private key that is there stays, and gets its public half. */
export function sshKey({ path, user, comment, ...item }: InHome & { comment: string }): Item {
  return command({
    ...{ what: `ssh key ${path} of ${user}`, path, user, ...item, needs: ["ssh-keygen"] },
    test: (sh) => sh`test -s ${path} -a -s ${path}.pub`,
    /** Each half is made beside, then renamed: one that was cut off is never taken for a key. */
    async make() {
      const sh = await inHomeOf(user);
      await sh`mkdir -p -m 700 -- ${dirname(path)} && chmod 700 -- ${dirname(path)}`;
      if (!(await sh({ nothrow: true })`test -s ${path}`).ok) {
        await sh`rm -f -- ${path}.new ${path}.new.pub`;
        await sh`ssh-keygen -q -t ed25519 -N ${""} -C ${comment} -f ${path}.new`;
        await sh`mv -fT -- ${path}.new ${path}`;
      }
      const half = await sh({ nothrow: true })`ssh-keygen -y -P ${""} -f ${path}`;
      if (!half.ok)
        throw new Failure(
          `${path} has no public half beside it, and none can be made of it: ${cleanLine(half.stderr)}; ` +
            `put ${path}.pub there, or move the key away`,
        );
      await writeInHome(user, `${path}.pub`, half.stdout);
      await sh`rm -f -- ${path}.new.pub`;
    },
  });
}

/** The ed25519 key of a host in known_hosts: the published one, or the one that it shows. */
export function hostKey({ host, sshPort = 22 }: Remote, { path, user, ...item }: InHome): Item[] {
  if (host === undefined) return [];
  const name = hostName(host, sshPort);
  const published = sshPort === 22 ? knownHost(host) : undefined;
  const add = async (lines: string[]) =>
    await writeInHome(user, path, withLines((await readInHome(user, path)) ?? "", lines));
  const make = async () => {
    if (published !== undefined) return await add([published]);
    const { stdout } = await $({
      nothrow: true,
      timeout: 30_000,
    })`ssh-keyscan -T 10 -t ed25519 -p ${sshPort} -- ${host}`;
    const lines = stdout.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
    if (lines.length === 0)
      throw new Failure(`${name} shows no ssh key; is the name right, and can this machine reach it?`);
    await add(lines);
    const shown = await $({ input: lines.join("\n"), nothrow: true })`ssh-keygen -lf -`;
    return `${name} showed this key; compare it with what it publishes: ${cleanLine(shown.stdout.trim())}`;
  };
  return [
    command({
      what: `the ${published === undefined ? "" : "published "}ssh key of ${host} in ${path}`,
      ...{ user, ...item, make, needs: ["ssh-keygen", "ssh-keyscan"] },
      test: (sh) => sh`ssh-keygen -F ${name} -f ${path}`,
    }),
  ];
}

/** A checkout. @param isOurs false: it is a person's, and stays */
export function clone(options: InHome & { url: string; branch: string | undefined; isOurs: boolean }): Item {
  const { path, user, url, branch, isOurs, ...rest } = options;
  const ref = branch === undefined ? [] : ["--branch", branch];
  const gitOf = async (timeout: number) => {
    const { env, ...own } = as(await lookUpUser(user), { nothrow: true, timeout });
    return gitIn("/", { ...own, env: { ...env, GIT_SSH_COMMAND: "ssh -oBatchMode=yes" } });
  };
  const isThere = async () => (await readInHome(user, join(path, ".git/HEAD"))) !== undefined;
  return {
    what: `clone of ${url} in ${path}${branch === undefined ? "" : `, branch ${branch}`}`,
    ...{ path, ...rest, needs: ["git", "setpriv", ...(/^(?:ssh:|[^/:]+@)/.test(url) ? ["ssh"] : [])] },
    async look() {
      const sh = await inHomeOf(user, { nothrow: true }).catch(() => undefined);
      if (!sh) return "make";
      const head = await (await gitOf(30_000))`git -C ${path} rev-parse --verify --quiet HEAD`;
      if (head.ok) return "ready";
      // an empty folder makes room
      if ((await sh`find ${path} -maxdepth 1 -mindepth 1 -print -quit`).stdout === "") return "make";
      const why = head.stderr === "" ? "" : `: ${reasonOf(head.stderr)}`;
      throw new Refused(`${path} is there and is not a checkout of ${user}${why}; move it away`);
    },
    /** Beside, then renamed: a clone that was cut off is never taken for a checkout. */
    async make() {
      const sh = await inHomeOf(user, { timeout: 600_000 });
      const git = await gitOf(1_800_000);
      const fresh = join(dirname(path), `.${user}.clone`);
      await sh`rm -rf -- ${fresh}`;
      const { ok, stderr } = await git`git clone --quiet ${ref} -- ${url} ${fresh}`;
      if (!ok) {
        const hint = cloneHint(stderr, { url, owner: user, branch });
        throw new Failure(`${url} cannot be cloned: ${reasonOf(stderr)}; ${hint}, and run setup again`);
      }
      if (!(await git`git -C ${fresh} rev-parse --verify --quiet HEAD`).ok)
        throw new Failure(`${url} has no commits yet; push one, and run setup again`);
      await sh`if test -d ${path}; then rmdir -- ${path}; fi && mv -T -- ${fresh} ${path}`;
    },
    back: isOurs
      ? {
          what: `folder ${path} with all that is in it`,
          ...{ data: true, isThere },
          remove: async () => await (await inHomeOf(user, { timeout: 600_000 }))`rm -rf -- ${path}`,
        }
      : undefined,
  };
}

/** A file in a home, read as its user; undefined: there is none. */
export async function readInHome(user: string, path: string): Promise<string | undefined> {
  const sh = await inHomeOf(user, { nothrow: true }).catch(() => undefined);
  if (!sh) return undefined;
  const { ok, stdout } = await sh`test -f ${path} && cat -- ${path}`;
  return ok ? stdout : undefined;
}

/** The same written, in its place in one step. */
async function writeInHome(user: string, path: string, text: string): Promise<void> {
  const sh = await inHomeOf(user, { input: text });
  await sh`umask 077 && rm -f -- ${path}.new && cat >${path}.new && mv -fT -- ${path}.new ${path}`;
}

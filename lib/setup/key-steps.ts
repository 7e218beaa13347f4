import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { dirname, join } from "node:path";
import { newSeed } from "../bus/nkey.ts";
import { readSecretFile } from "../config/secrets.ts";
import { cleanLine } from "../core/clean.ts";
import { Failure, Refused } from "../core/errors.ts";
import { $, type Shell } from "../exec/exec.ts";
import { as, lookUpUser } from "../exec/users.ts";
import { readIfThere } from "../files/files.ts";
import { gitIn } from "../git/git.ts";
import { content, inHomeOf, owned, readOwn, write } from "./file-steps.ts";
import { cloneHint, hostName, reasonOf, withLines } from "./forge.ts";
import { fileRemoved, treeRemoved } from "./remove-steps.ts";
import { commandAs, commandLine, inRoot, type OwnedPath, type Step, type StepState } from "./step.ts";

/** Secrets and keys, each made once, and what a repo's user gets with them: a checkout. */

/**
 * A secret: random, 32 bytes in hex.
 * @param from a file that has it already. It is read once, since it may be a pipe: `<(pass show …)`.
 */
export function secret({ from, ...options }: OwnedPath & { from?: string | undefined }): Step {
  const make = () => `${randomBytes(32).toString("hex")}\n`;
  if (from === undefined) return madeOnce("secret", closed(options), make);
  let reading: Promise<string> | undefined;
  const given = () => (reading ??= readSecretFile(from));
  const step = content({
    ...{ ...closed(options), ...named("secret", closed(options)) },
    async wanted(now) {
      const text = await given();
      // line ends that editors add do not count
      return now?.trimEnd() === text.trimEnd() ? now : `${text}\n`;
    },
  });
  // one that cannot be taken is said before anything is touched
  return { ...step, look: async (root) => await given().then(() => step.look(root)) };
}

/** A private key in PEM: Ed25519 as `server-update keygen` makes one, or P-256 for TLS. */
export function privateKey(options: OwnedPath & { type: "ed25519" | "P-256" }): Step {
  return madeOnce("key", closed(options), () => {
    const { privateKey: made } =
      options.type === "ed25519"
        ? generateKeyPairSync("ed25519")
        : generateKeyPairSync("ec", { namedCurve: options.type });
    return made.export({ type: "pkcs8", format: "pem" }) as string;
  });
}

/**
 * A certificate that nobody has signed, for ten years: slaves and masters get a copy, and trust it alone.
 * @param address the name or IP address that they connect to
 * @param key its private key, which is there by then
 */
export function certificate(options: OwnedPath & { key: string; address: string }): Step {
  const { path, key, address } = options;
  const isAddress = isIP(address) !== 0;
  const wanted = async (now: string | undefined, root: string) => {
    const keyFile = await inRoot(root, key);
    const keyText = await readIfThere(keyFile);
    if (now) {
      const there = readPem(path, "certificate", () => new X509Certificate(now));
      if ((isAddress ? there.checkIP(address) : there.checkHost(address)) === undefined)
        throw new Refused(
          `${path} is for ${cleanLine(there.subjectAltName?.replace(/^(?:DNS|IP Address):/, "") ?? "nobody")}, not ` +
            `for ${address}; name that by --address, or remove ${path} for a new one, of which all need a copy`,
        );
      const own = keyText && readPem(key, "private key", () => createPrivateKey(keyText));
      if (own && there.checkPrivateKey(own)) return now;
    }
    if (!keyText) return "";
    const about = ["-subj", `/CN=${address}`];
    const names = ["-addext", `subjectAltName=${isAddress ? "IP" : "DNS"}:${address}`];
    return (await $`openssl req -x509 -key ${keyFile} -days 3650 ${about} ${names}`).stdout;
  };
  const what = `certificate ${path} for ${address}`;
  const step = content({ ...options, ...named("certificate", options), what, wanted });
  return { ...step, needs: ["openssl"] };
}

function readPem<T>(path: string, kind: string, read: () => T): T {
  try {
    return read();
  } catch {
    throw new Refused(`${path} is not a ${kind}; put it right, or remove it for a new one, of which all need a copy`);
  }
}

/** The seed of a NATS user: how a bus knows this machine. */
export function busSeed(options: OwnedPath): Step {
  return madeOnce("seed", closed(options), () => `${newSeed()}\n`);
}

/** The public half of a private key, as one word. */
export function publicKey(options: OwnedPath & { of: string }): Step {
  return madeOnce("public key", options, async (root) => {
    const file = await inRoot(root, options.of);
    try {
      const { x } = createPublicKey(await readFile(file, "utf8")).export({ format: "jwk" });
      return `ed25519:${x}\n`;
    } catch {
      // the error might quote the key
      throw new Failure(`${file} is not a private key; move it away, and run setup again`);
    }
  });
}

/** What only its owner reads. */
const closed = (options: OwnedPath) => ({ mode: 0o600, ...options });

type Make = (root: string) => string | Promise<string>;

/** A file whose text comes to be when it is missing or empty, and stays from then on. */
function madeOnce(kind: string, options: OwnedPath, make: Make): Step {
  const wanted = async (now: string | undefined, root: string) => now || (await make(root));
  return content({ ...options, ...named(kind, options), wanted });
}

function named(kind: string, options: OwnedPath): Pick<Step, "what" | "undo"> {
  return {
    what: `${kind} ${owned(options)}`,
    undo: { step: fileRemoved(options.path), data: true },
  };
}

type InHome = Pick<OwnedPath, "path" | "why"> & { owner: string };

/** An ssh key pair without a passphrase. A private key that is there stays, and gets its public half. */
export function key({ path, owner, comment, why }: InHome & { comment: string }): Step {
  return {
    what: `ssh key ${path} of ${owner}`,
    ...{ path, why, needs: ["ssh-keygen", "setpriv"] },
    look: () => stateBy(owner, (asOwner) => asOwner`test -s ${path} -a -s ${path}.pub`),
    /** Each half is made beside, then renamed: one that was cut off is never taken for a key. */
    async perform() {
      const asOwner = await inHomeOf(owner);
      const isThere = (await asOwner({ nothrow: true })`test -s ${path}`).ok;
      if (!isThere) {
        await asOwner`rm -f -- ${path}.new ${path}.new.pub`;
        await asOwner`ssh-keygen -q -t ed25519 -N ${""} -C ${comment} -f ${path}.new`;
        await asOwner`mv -fT -- ${path}.new ${path}`;
      }
      const half = await asOwner({ nothrow: true })`ssh-keygen -y -P ${""} -f ${path}`;
      if (!half.ok)
        throw new Failure(
          `${path} has no public half beside it, and none can be made of it: ${cleanLine(half.stderr)}; ` +
            `put ${path}.pub there, or move the key away`,
        );
      await write(`${path}.pub`, half.stdout, { mode: 0o644, owner, asOwner: true });
      await asOwner`rm -f -- ${path}.new.pub`;
    },
    byHand: () => [commandAs(owner, "ssh-keygen", "-t", "ed25519", "-N", "", "-C", comment, "-f", path)],
  };
}

/** The ed25519 key that a host shows, in known_hosts. */
export function hostKey(options: InHome & { host: string; port: number }): Step {
  const { path, owner, host, port, why } = options;
  const name = hostName(host, port);
  return {
    what: `host key of ${host} in ${path}`,
    ...{ path, why, needs: ["ssh-keygen", "ssh-keyscan", "setpriv"] },
    look: () => stateBy(owner, (asOwner) => asOwner`ssh-keygen -F ${name} -f ${path}`),
    async perform() {
      const scan = $({ nothrow: true, timeout: 30_000 });
      const { stdout } = await scan`ssh-keyscan -T 10 -t ed25519 -p ${port} -- ${host}`;
      const lines = stdout.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
      if (lines.length === 0)
        throw new Failure(`${name} shows no ssh key; is the name right, and can this machine reach it?`);
      const own = { owner, asOwner: true };
      await write(path, withLines((await readOwn(path, own)) ?? "", lines), {
        mode: 0o600,
        ...own,
      });
      const shown = await $({ input: lines.join("\n"), nothrow: true })`ssh-keygen -lf -`;
      return `${name} showed this key; compare it with what it publishes: ${cleanLine(shown.stdout.trim())}`;
    },
    byHand: () => [`${commandLine("ssh-keyscan", "-t", "ed25519", "-p", String(port), host)} >> ${path}`],
  };
}

/** A checkout. */
export function clone(options: InHome & { url: string; branch: string | undefined }): Step {
  const { path, owner, url, branch, why } = options;
  const ref = branch === undefined ? [] : ["--branch", branch];
  const gitOf = async (timeout: number) => {
    const { env, ...user } = as(await lookUpUser(owner), { nothrow: true, timeout });
    return gitIn("/", { ...user, env: { ...env, GIT_SSH_COMMAND: "ssh -oBatchMode=yes" } });
  };
  return {
    what: `clone of ${url} in ${path}${branch === undefined ? "" : `, branch ${branch}`}`,
    ...{ path, why, needs: ["git", "setpriv", ...(/^(?:ssh:|[^/:]+@)/.test(url) ? ["ssh"] : [])] },
    async look() {
      const asOwner = await inHomeOf(owner, { nothrow: true }).catch(() => undefined);
      if (!asOwner) return "make";
      const git = await gitOf(30_000);
      const head = await git`git -C ${path} rev-parse --verify --quiet HEAD`;
      if (head.ok) return "ready";
      // an empty folder makes room
      if ((await asOwner`find ${path} -maxdepth 1 -mindepth 1 -print -quit`).stdout === "") return "make";
      const why = head.stderr === "" ? "" : `: ${reasonOf(head.stderr)}`;
      throw new Refused(`${path} is there and is not a checkout of ${owner}${why}; move it away`);
    },
    /** Beside, then renamed: a clone that was cut off is never taken for a checkout. */
    async perform() {
      const asOwner = await inHomeOf(owner, { timeout: 600_000 });
      const git = await gitOf(1_800_000);
      const fresh = join(dirname(path), `.${owner}.clone`);
      await asOwner`rm -rf -- ${fresh}`;
      const { ok, stderr } = await git`git clone --quiet ${ref} -- ${url} ${fresh}`;
      if (!ok) {
        const reason = reasonOf(stderr);
        const hint = cloneHint(stderr, { url, owner, branch });
        throw new Failure(`${url} cannot be cloned: ${reason}; ${hint}, and run setup again`);
      }
      if (!(await git`git -C ${fresh} rev-parse --verify --quiet HEAD`).ok)
        throw new Failure(`${url} has no commits yet; push one, and run setup again`);
      const script = '[ ! -d "$2" ] || rmdir -- "$2"; mv -T -- "$1" "$2"';
      await asOwner`sh -e -c ${script} sh ${fresh} ${path}`;
    },
    byHand: () => [commandAs(owner, "git", "clone", ...ref, "--", url, path)],
    undo: { step: treeRemoved(path, owner), data: true },
  };
}

/** "ready" when a command of that user succeeds; "make" also when there is no such user. */
async function stateBy(owner: string, check: (asOwner: Shell) => PromiseLike<{ ok: boolean }>): Promise<StepState> {
  const asOwner = await inHomeOf(owner, { nothrow: true }).catch(() => undefined);
  return asOwner && (await check(asOwner)).ok ? "ready" : "make";
}

import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { homedir, hostname, tmpdir, userInfo } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { readSecretFile } from "../config/secrets.ts";
import { Failure, messageOf, systemCode, UsageError } from "../core/errors.ts";
import { $, cleanEnvironment } from "../exec/exec.ts";
import { fingerprintOf, normalFingerprint, type PublicKey, readPublicKeys } from "../openpgp/keys.ts";
import { generateSigningKey, openPrivateKey, signDetached } from "../openpgp/sign.ts";

/** What signs: a key file of ours, or the user's gpg. */
export interface Signer {
  /** As it was named: a file, or `gpg:FINGERPRINT`. */
  written: string;
  fingerprint: string;
  publicKey: PublicKey;
  /** Device and inode of the key file; none with gpg. */
  file?: string;
  /** A detached binary signature over a file, or over bytes. */
  sign(data: { path: string } | Uint8Array, notations?: Record<string, string>): Promise<Uint8Array>;
}

export interface SignerOptions {
  /** A file, or `gpg:FINGERPRINT`; default: `defaultKeyFile`, where `release keygen` puts it. */
  key?: string | undefined;
  passphraseFile?: string | undefined;
  /** Ask a person; undefined when there is nobody to ask. */
  ask?: ((question: string) => Promise<string>) | undefined;
}

/** Where `release keygen` writes and `release pack` looks, unless told otherwise. */
function defaultKeyFile(): string {
  const config = process.env["XDG_CONFIG_HOME"] || join(homedir(), ".config");
  return join(config, "boatyard", "release.asc");
}

/**
 * Make the key ready to sign.
 * @throws {UsageError} when there is none, others can read it, or its passphrase is wrong.
 */
export async function openSigner({ key, passphraseFile, ask }: SignerOptions): Promise<Signer> {
  if (key?.startsWith("gpg:")) return await gpgSigner(key.slice(4), passphraseFile);
  const path = key ?? defaultKeyFile();
  let data: Buffer;
  let file: string;
  try {
    const { mode, dev, ino } = await stat(path);
    file = `${dev}:${ino}`;
    if (mode & 0o077) throw new UsageError(`the key file ${path} can be read by others; run: chmod 600 ${path}`);
    data = await readFile(path);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const why = systemCode(error) === "ENOENT" ? "is not there" : `cannot be read (${messageOf(error)})`;
    throw new UsageError(`the key file ${path} ${why}; make one with: release keygen, or name it with --key`);
  }
  const privateKey = await openPrivateKey(data, path, async () => {
    if (passphraseFile !== undefined) return await readSecretFile(passphraseFile);
    if (ask) return await ask(`Passphrase for ${path}: `);
    throw new UsageError(`${path} has a passphrase; give it with --passphrase-file`);
  });
  return {
    written: path,
    fingerprint: fingerprintOf(privateKey),
    publicKey: privateKey.toPublic(),
    file,
    async sign(what, notations) {
      const data = what instanceof Uint8Array ? what : () => createReadStream(what.path);
      return await signDetached(privateKey, data, notations);
    },
  };
}

async function gpgSigner(text: string, passphraseFile: string | undefined): Promise<Signer> {
  const fingerprint = normalFingerprint(text);
  if (fingerprint === undefined)
    throw new UsageError(`--key gpg:${text}: give the whole fingerprint (gpg --list-secret-keys shows it)`);
  const gpg = $({ env: cleanEnvironment({ GNUPGHOME: process.env["GNUPGHOME"] }) });
  const { stdout } = await gpg`gpg --batch --no-tty --armor --export ${fingerprint}`;
  if (stdout.trim() === "") throw new UsageError(`gpg has no key ${fingerprint}; look at gpg --list-secret-keys`);
  const [key] = await readPublicKeys(Buffer.from(stdout), "gpg --export");
  if (!key) throw new Failure(`gpg exports no key ${fingerprint}`);
  if (passphraseFile !== undefined) await readSecretFile(passphraseFile);
  const unlock =
    passphraseFile === undefined ? [] : ["--pinentry-mode", "loopback", "--passphrase-file", passphraseFile];
  return {
    written: `gpg:${text}`,
    // a subkey's fingerprint may have been given; clients pin the primary one
    fingerprint: fingerprintOf(key),
    publicKey: key,
    async sign(what, notations = {}) {
      const folder = await mkdtemp(join(tmpdir(), "release-sign-"));
      try {
        const output = join(folder, "signature");
        const input = what instanceof Uint8Array ? join(folder, "data") : what.path;
        if (what instanceof Uint8Array) await writeFile(input, what);
        const notes = Object.entries(notations).flatMap(([name, value]) => [
          "--sig-notation",
          // gpg expands % in a notation's value
          `${name}=${value.replaceAll("%", "%%")}`,
        ]);
        const how = ["--local-user", fingerprint, "--digest-algo", "SHA256", ...unlock, ...notes];
        await gpg`gpg --batch --yes --no-tty ${how} --output ${output} --detach-sign -- ${input}`;
        return await readFile(output);
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
  };
}

/** When a signer's key expires; undefined: never. */
export async function endOf({ publicKey }: Pick<Signer, "publicKey">): Promise<Date | undefined> {
  const end = await publicKey.getExpirationTime().catch(() => null);
  return end instanceof Date ? end : undefined;
}

/** One signature by each key, as they stand in one file. */
export async function signWith(
  signers: readonly Signer[],
  data: { path: string } | Uint8Array,
  notations?: Record<string, string>,
): Promise<Buffer> {
  const made: Uint8Array[] = [];
  for (const signer of signers) made.push(await signer.sign(data, notations));
  return Buffer.concat(made);
}

/**
 * Make several keys ready to sign.
 * @throws {UsageError} as openSigner does, and when one is named twice.
 */
export async function openSigners(keys: readonly string[], options: Omit<SignerOptions, "key">): Promise<Signer[]> {
  const signers: Signer[] = [];
  for (const key of keys.length > 0 ? keys : [undefined]) {
    const signer = await openSigner({ ...options, key });
    if (signers.some(({ fingerprint }) => fingerprint === signer.fingerprint))
      throw new UsageError(`--key names ${signer.fingerprint} twice`);
    signers.push(signer);
  }
  return signers;
}

export interface KeygenOptions {
  out?: string | undefined;
  name?: string | undefined;
  email?: string | undefined;
  passphraseFile?: string | undefined;
}

/**
 * Make a signing key: ed25519, armored, mode 600.
 * @throws {UsageError} when the file is there: a key is never overwritten.
 */
export async function keygen({
  out = defaultKeyFile(),
  name = `${userInfo().username}@${hostname()}`,
  email,
  passphraseFile,
}: KeygenOptions): Promise<{ file: string; fingerprint: string }> {
  const passphrase = passphraseFile === undefined ? undefined : await readSecretFile(passphraseFile);
  const { privateKey, fingerprint } = await generateSigningKey({ name, email, passphrase });
  await mkdir(dirname(out), { recursive: true, mode: 0o700 });
  try {
    await writeFile(out, privateKey, { mode: 0o600, flag: "wx" });
  } catch (error) {
    if (systemCode(error) === "EEXIST")
      throw new UsageError(`${out} is there already; a key is never overwritten, choose another --out`);
    throw error;
  }
  return { file: out, fingerprint };
}

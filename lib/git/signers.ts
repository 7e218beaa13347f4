import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { cleanLine } from "../core/clean.ts";
import { messageOf, Refused, systemCode, UsageError } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { gitIn, type GitOptions } from "./git.ts";

/** Only commits that somebody known has signed: the keys of one file, and no others, count. */
export interface Signers {
  /** `allowed_signers` of ssh-keygen(1), or OpenPGP public keys. */
  kind: "ssh" | "openpgp";
  /** Its path, for messages. */
  file: string;
  text: Buffer;
}

/**
 * Read the file of who may sign.
 * @param where what names it, for messages
 * @throws {UsageError} when it cannot be read, others than root and this user may write it, or nobody stands in it
 */
export async function readSigners(file: string, where: string): Promise<Signers> {
  const wrong = (why: string) => new UsageError(`${where}: ${file} ${why}`);
  try {
    const [info, text] = [await stat(file), await readFile(file)];
    const isOurs = [0, process.getuid?.()].includes(info.uid);
    if (!isOurs) throw wrong(`belongs to user ${info.uid}, who could add keys to it; run: chown root ${file}`);
    if ((info.mode & 0o022) !== 0) throw wrong(`can be written by others; run: chmod go-w ${file}`);
    const isPgp = text.includes("BEGIN PGP PUBLIC KEY") || (text[0] ?? 0) >= 0x80;
    const isEmpty = !isPgp && text.toString().replace(/#.*/g, "").trim() === "";
    if (isEmpty) throw wrong("names nobody; write lines of ssh-keygen's allowed_signers, or OpenPGP public keys");
    return { kind: isPgp ? "openpgp" : "ssh", file, text };
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw wrong(`cannot be read: ${systemCode(error) ?? messageOf(error)}`);
  }
}

/**
 * Check that one of the signers has signed a commit.
 * @throws {Refused} when it is not signed, or not by a key that counts now
 */
export async function checkSigned(dir: string, sha: string, signers: Signers, options: GitOptions): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), "signers-"));
  try {
    const file = join(home, "signers");
    const isSsh = signers.kind === "ssh";
    await writeFile(file, isSsh ? validNow(signers.text.toString(), new Date()) : signers.text);
    // SHA-1 can be made to fit: gpg takes it without a word
    await writeFile(join(home, "gpg.conf"), "weak-digest SHA1\nno-auto-key-retrieve\n");
    if (!isSsh) {
      const { exitCode, stderr } = await $({
        nothrow: true,
      })`gpg --homedir ${home} --batch --quiet --import -- ${file}`;
      if (exitCode !== 0) throw new UsageError(`${signers.file}: gpg cannot read it: ${cleanLine(stderr)}`);
    }
    const git = gitIn(dir, {
      ...options,
      env: { ...options.env, GNUPGHOME: home, GIT_NO_REPLACE_OBJECTS: "1" },
      config: {
        ...options.config,
        "gpg.openpgp.program": isSsh ? "false" : "gpg",
        "gpg.ssh.program": isSsh ? "ssh-keygen" : "false",
        "gpg.x509.program": "false",
        "gpg.ssh.allowedSignersFile": isSsh ? file : "/dev/null",
        "gpg.minTrustLevel": "undefined",
      },
    });
    const { exitCode, stderr } = await git`git verify-commit -- ${sha}`.nothrow();
    if (exitCode === 0) return;
    const said = cleanLine(stderr.replaceAll(`${home}/`, "").trim()).slice(0, 300);
    const why = said === "" ? "it is not signed" : said;
    throw new Refused(`commit ${sha} is not signed by a key of ${signers.file} (${why}); have one of them sign it`);
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

/**
 * Pure: the lines of allowed_signers that count now. git asks whether a key counted when the commit was made, and that
 * time is what its author says.
 */
export function validNow(text: string, now: Date): string {
  const digits = (date: Date) => date.toISOString().replace(/\D/g, "").slice(0, 14);
  const local = digits(new Date(now.getTime() - now.getTimezoneOffset() * 60_000));
  return text
    .split("\n")
    .filter((line) => {
      const [, end, zone] = /[\s,]valid-before="?(\d{8,14})(Z?)/i.exec(line) ?? [];
      return end === undefined || end.padEnd(14, "0") > (zone === "" ? local : digits(now));
    })
    .join("\n");
}

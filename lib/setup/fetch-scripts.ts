import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { readTarGz, shownName, tarLimits } from "../archive/tar.ts";
import { atEnd } from "../core/at-exit.ts";
import { Failure, messageOf, Refused } from "../core/errors.ts";
import { exists, readIfThere, readPieces, writeAtomic } from "../files/files.ts";
import { acquireLock } from "../files/lock.ts";
import {
  type Accepted,
  accepted,
  checkArchive,
  checkLine,
  checkVersion,
} from "../web-folder/floors.ts";
import { Trust } from "../web-folder/trust.ts";
import { currentFor, thisPlatform } from "../web-folder/version-file.ts";
import { type SignedVersion, WebFolder } from "../web-folder/web-folder.ts";
import { places } from "./step.ts";

/** Newer scripts from a signed web folder, as `release pack` makes it, verified as launchfit verifies an app. */

export interface FetchOptions {
  /** The pinned fingerprint; the one that was accepted first is remembered. */
  key: string | undefined;
  allowDowngrade: boolean;
  /** Nothing of it is remembered: neither a key that is pinned nor what was accepted. */
  dryRun: boolean;
  note: (line: string) => void;
  signal: AbortSignal;
}

/** What was accepted before: an older VERSION is not taken later, and nothing by another key. */
interface Record extends Accepted {
  pin?: string[];
}

const maxSize = 200 * 1024 ** 2;

/**
 * Fetch what the web folder offers, and check it.
 * @returns a folder of root's with the scripts, which is gone when this process ends.
 * @throws {Busy} while another upgrade is at work.
 * @throws {Refused} when it is not signed by the pinned key, is older than what was accepted before, or is no Boatyard.
 */
export async function fetchScripts(url: string, options: FetchOptions): Promise<string> {
  const { signal, note, allowDowngrade, dryRun } = options;
  await mkdir(places.upgrades, { recursive: true, mode: 0o700 });
  // held until this process ends
  await acquireLock("/run/boatyard-upgrade.lock", { what: "setup upgrade", secluded: true });
  // of one that was killed
  for (const name of await readdir(places.upgrades))
    if (name.startsWith("fetch-"))
      await rm(join(places.upgrades, name), { recursive: true, force: true });
  const temporary = await mkdtemp(join(places.upgrades, "fetch-"));
  atEnd(() => rm(temporary, { recursive: true, force: true }));
  const recordFile = join(places.upgrades, "accepted.json");
  const keys = join(places.upgrades, "keys");
  const store = dryRun ? join(temporary, "keys") : keys;
  if (dryRun && (await exists(keys))) await cp(keys, store, { recursive: true });
  const state = await readRecord(recordFile);
  const folder = new WebFolder(url, { temporary, timeout: 30_000, maxSize, signal, note });
  try {
    const context = { store, pinned: state.pin ?? [], folders: [folder], app: state.app };
    const trust = await Trust.open(context, { key: options.key, note });
    const name = folder.name("VERSION");
    const version = await folder.version((given) => trust.verifyVersion(folder, given));
    const offer = offered(version, state, name, { allowDowngrade });
    const { app, line } = offer;
    const archive = await folder.archive(line, trust.signers);
    try {
      const { sha256, signature } = archive;
      const signed = signature.created.toISOString();
      checkArchive(state, offer, { sha256, signed }, folder.name(line.file), { allowDowngrade });
      const scripts = join(temporary, "scripts");
      await mkdir(scripts);
      await unpackScripts(archive.fd, scripts, folder.name(line.file), signal);
      await trust.accept();
      const after = accepted(state, offer, { app, line, archive }, { allowDowngrade });
      const text = `${JSON.stringify({ ...after, pin: trust.pins }, null, 2)}\n`;
      if (!dryRun) await writeAtomic(recordFile, text, { mode: 0o600 });
      return scripts;
    } finally {
      await archive.discard();
    }
  } finally {
    folder.close();
  }
}

/** Which archive is for this machine, if its VERSION may be taken. */
function offered(
  version: SignedVersion | undefined,
  state: Record,
  name: string,
  { allowDowngrade }: { allowDowngrade: boolean },
): SignedVersion & { app: string; line: ReturnType<typeof currentFor> } {
  if (!version?.signature) throw new Refused(`${name} is not signed (VERSION.sig)`);
  checkVersion(state, version, name, { allowDowngrade });
  const app = version.file.app ?? "boatyard";
  if (app !== (state.app ?? "boatyard"))
    throw new Refused(`${name} is for the app ${app}, not for ${state.app ?? "boatyard"}`);
  const line = currentFor(version.file, thisPlatform(process.platform, false), name);
  checkLine(state, { ...version, line }, name);
  return { ...version, app, line };
}

/** @throws {Failure} when the file cannot be understood: to forget it would be to drop the guard. */
async function readRecord(file: string): Promise<Record> {
  const text = await readIfThere(file);
  if (text === undefined) return { floor: {}, versions: {} };
  try {
    const { floor, versions, ...rest } = JSON.parse(text) as Record;
    return { ...rest, floor: floor ?? {}, versions: versions ?? {} };
  } catch (error) {
    throw new Failure(
      `${file} cannot be read: ${messageOf(error)}; correct it, or remove it to forget what was accepted before`,
    );
  }
}

/** The scripts of an archive, which lie at its top or in one folder there; what else is in it stays there. */
async function unpackScripts(
  fd: number,
  folder: string,
  name: string,
  signal: AbortSignal,
): Promise<void> {
  const files = new Map<string, Buffer[]>();
  const limits = { ...tarLimits, size: maxSize, entries: 1000 };
  try {
    await readTarGz(
      readPieces(fd),
      (entry) => {
        const script = /^(?:\.\/)?(?:[\w.-]+\/)?([a-z-]+\.mjs)$/.exec(entry.path)?.[1];
        if (script === undefined) return undefined;
        if (entry.type !== "File" || files.has(script))
          throw new Refused(`"${shownName(entry.path)}" is there twice, or is not a file`);
        const pieces: Buffer[] = [];
        files.set(script, pieces);
        return { write: (piece) => void pieces.push(Buffer.from(piece)), end: () => {} };
      },
      { limits, signal },
    );
  } catch (error) {
    if (error instanceof Refused) throw new Refused(`${name} is not unpacked: ${error.message}`);
    throw error;
  }
  if (!files.has("setup.mjs")) throw new Refused(`${name} holds no setup.mjs: is it Boatyard?`);
  for (const [script, pieces] of files)
    await writeFile(join(folder, script), Buffer.concat(pieces), { mode: 0o755 });
}

import { readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Failure, messageOf, Refused, UsageError } from "../errors.ts";
import { exists } from "../files.ts";
import { currentFor, type CurrentLine, readArchiveName, thisPlatform } from "../version-file.ts";
import { type SignedVersion, type VerifiedArchive, WebFolder } from "../web-folder.ts";
import { type LaunchConfig, readLaunchConfig } from "./config.ts";
import {
  clearTemporary,
  currentRelease,
  type DeployDirectory,
  placeRelease,
} from "./deploy-directory.ts";
import { accepted, checkArchive, checkExpiry, checkSameBytes, checkVersion } from "./floors.ts";
import { type LaunchState, readState, writeState } from "./state.ts";
import { findTrust, saveKeys, type Trust, type TrustOptions } from "./trust.ts";
import { unpack } from "./unpack.ts";

/**
 * Taking a release from a web folder, in steps that can be called one by one, under the directory's lock:
 *
 *     const session = await openSession(deploy, config, options)
 *     const found = await findUpdate(session)           what VERSION says, verified, held against the floors
 *     const verified = await fetchRelease(session, found)   download and signature, to a temporary folder
 *     await unpackRelease(session, found, verified)     unpack, record the floors, releases/NAME-VERSION
 *     await switchCurrent(deploy, found.name)           (deploy-directory.ts)
 *     session.close()
 *
 * After a kill at any instant the directory is as before or as after, and the same steps complete it.
 */
export interface InstallOptions extends TrustOptions {
  allowDowngrade?: boolean | undefined;
  /** Milliseconds; default: updates.timeout. */
  timeout?: number | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, total: number | undefined) => void) | undefined;
  /** In VERSION's words; default: this machine's. */
  platform?: string | undefined;
}

export interface Session {
  readonly deploy: DeployDirectory;
  readonly config: LaunchConfig;
  readonly options: InstallOptions;
  readonly folders: readonly WebFolder[];
  readonly trust: Trust;
  state: LaunchState;
  close(): void;
}

export interface Found {
  /** `unchanged`: VERSION is the one of the last time. `current`: `current` names it already. */
  kind: "unchanged" | "current" | "new";
  /** `my-app-1.23.42b`; empty when unchanged. */
  name: string;
  app: string;
  version: string;
  release?: string;
  expires?: Date;
  /** Where it may be fetched, the best first. */
  offers: Offer[];
}

interface Offer extends SignedVersion {
  folder: WebFolder;
  line: CurrentLine;
  app: string;
}

/** Read the state and find the pinned key. Needs the folders that `prepare` makes. */
export async function openSession(
  deploy: DeployDirectory,
  config: LaunchConfig,
  options: InstallOptions,
): Promise<Session> {
  if (config.updates.server.length === 0)
    throw new UsageError(
      "no web folder is known; give its URL, or updates.server in launchify.yml",
    );
  const state = await readState(deploy);
  const folders = config.updates.server.map(
    (url) =>
      new WebFolder(url, {
        temporary: deploy.temporary,
        timeout: options.timeout ?? config.updates.timeout,
        maxSize: config.updates.max_size,
        signal: options.signal,
        onProgress: options.onProgress,
        note: options.note,
      }),
  );
  const close = () => {
    for (const folder of folders) folder.close();
  };
  try {
    const pins = config.updates.gpg.key;
    const trust = await findTrust(
      deploy,
      pins.length > 0 ? pins : (state.pin ?? []),
      folders,
      options,
    );
    return { deploy, config, options, folders, trust, state, close };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * Ask the web folders what is current. All are asked, since one that shows an old VERSION must not hide a newer one.
 * @param conditional answer `unchanged` when VERSION is the one that was dealt with last.
 * @throws {Refused} when no folder has a VERSION that may be taken, with each one's reason.
 */
export async function findUpdate(session: Session, { conditional = false } = {}): Promise<Found> {
  const { folders, state, config, options, trust } = session;
  const only = folders.length === 1 ? folders[0] : undefined;
  const etag = conditional && only ? state.etags[only.url] : undefined;
  const answers = await Promise.all(
    folders.map(async (folder) => {
      try {
        const version = await folder.version(trust.keys, etag);
        if (!version) return "unchanged" as const;
        return readOffer(folder, version, state, config, options);
      } catch (error) {
        options.signal?.throwIfAborted();
        return { folder, error };
      }
    }),
  );
  if (answers.includes("unchanged") && only) {
    checkExpiry(state.expires, only.name("VERSION"));
    return { kind: "unchanged", name: "", app: state.app ?? "", version: "", offers: [] };
  }
  const failed = answers.filter((answer) => answer !== "unchanged" && "error" in answer);
  const good = answers.filter(
    (answer): answer is Offer => answer !== "unchanged" && "line" in answer,
  );
  const offers = good.some(({ verdict }) => verdict) ? newestFirst(good) : good;
  const [best] = offers;
  if (!best) throw allFailed(failed);
  for (const { error } of failed) options.note(`${messageOf(error)}; another server is taken`);
  const name = `${best.app}-${best.line.version}`;
  const { release, expires } = best.file;
  return {
    kind: (await currentRelease(session.deploy)) === name ? "current" : "new",
    name,
    app: best.app,
    version: best.line.version,
    ...(release === undefined ? {} : { release }),
    ...(best.verdict && expires ? { expires } : {}),
    offers,
  };
}

/** Hold one folder's VERSION against what is known here. */
function readOffer(
  folder: WebFolder,
  version: SignedVersion,
  state: LaunchState,
  config: LaunchConfig,
  options: InstallOptions,
): Offer {
  const name = folder.name("VERSION");
  const { file, verdict } = version;
  checkVersion(state, version, name, options);
  const platform = options.platform ?? thisPlatform(process.platform, isMusl());
  const line = currentFor(file, platform, name);
  // without a signature over it, nothing else in VERSION counts
  const inName = readArchiveName(line.file, line.version)?.app;
  const wanted = config.app.name ?? state.app;
  const app = (verdict ? file.app : undefined) ?? inName ?? wanted;
  if (app === undefined)
    throw new Refused(`${name} does not tell the app's name; give app.name in launchify.yml`);
  for (const said of [app, inName])
    if (wanted !== undefined && said !== undefined && said !== wanted)
      throw new Refused(`${name} is for the app ${said}, not for ${wanted} (wrong software)`);
  checkSameBytes(state, line, verdict ? line.sha256 : undefined);
  return { ...version, folder, line, app };
}

/** Of signed VERSIONs only the newest, which several mirrors may have. */
function newestFirst(offers: Offer[]): Offer[] {
  const time = ({ file, verdict }: Offer) => [
    file.date?.getTime() ?? 0,
    verdict?.created.getTime() ?? 0,
  ];
  const signed = offers.filter(({ verdict }) => verdict);
  signed.sort((a, b) => {
    const [one, other] = [time(a), time(b)];
    return (other[0] ?? 0) - (one[0] ?? 0) || (other[1] ?? 0) - (one[1] ?? 0);
  });
  const best = signed[0];
  return signed.filter(
    ({ line }) => line.version === best?.line.version && line.sha256 === best.line.sha256,
  );
}

function allFailed(failed: readonly unknown[]): Error {
  const errors = failed.map((each) => (each as { error: unknown }).error);
  const [first] = errors;
  const bug = errors.find((error) => !(error instanceof Failure) && !(error instanceof Refused));
  if (bug !== undefined) return bug as Error;
  if (errors.length === 1) return first as Error;
  const text = errors.map(messageOf).join("\n");
  return errors.some((error) => error instanceof Refused) ? new Refused(text) : new Failure(text);
}

/**
 * Fetch the archive and check it. Undefined: the release stands in releases/ already, as it was verified before.
 * @throws {Refused} when no folder gives the right bytes.
 */
export async function fetchRelease(
  session: Session,
  found: Found,
): Promise<VerifiedArchive | undefined> {
  const { deploy, state, options, trust } = session;
  const failed: { error: unknown }[] = [];
  for (const { folder, line, verdict } of found.offers) {
    const known = state.versions[line.version];
    if (known && (await exists(join(deploy.releases, found.name)))) {
      checkArchive(state, verdict, known.signed, folder.name(line.file), options);
      return undefined;
    }
    try {
      const archive = await folder.archive(line, trust.keys);
      try {
        const name = folder.name(line.file);
        checkSameBytes(state, line, archive.sha256);
        checkArchive(state, verdict, archive.verdict.created.toISOString(), name, options);
        return archive;
      } catch (error) {
        await archive.discard();
        throw error;
      }
    } catch (error) {
      options.signal?.throwIfAborted();
      failed.push({ error });
      if (found.offers.length > failed.length)
        options.note(`${messageOf(error)}; trying another server`);
    }
  }
  throw allFailed(failed);
}

/**
 * Unpack a verified archive and put it into releases/ in one step; the floors are recorded just before.
 * With no archive (`fetchRelease` found it in place) only the floors are recorded.
 * @throws {Refused} when an entry of the archive breaks a rule, or it is another app's.
 */
export async function unpackRelease(
  session: Session,
  found: Found,
  archive: VerifiedArchive | undefined,
): Promise<void> {
  const { deploy, options } = session;
  if (!archive) return await recordAccepted(session, found, undefined);
  const folder = await mkdtemp(join(deploy.temporary, "unpack-"));
  try {
    const name = found.offers[0]?.line.file ?? found.name;
    await unpack(archive.fd, folder, name, { signal: options.signal });
    const own = await ownName(folder);
    if (own !== undefined && own !== found.app)
      throw new Refused(`${name} holds the app ${own}, not ${found.app} (wrong software)`);
    await recordAccepted(session, found, archive);
    // one that is there without a record was not put there by us
    if (await exists(join(deploy.releases, found.name)))
      throw new Refused(
        `${join(deploy.releases, found.name)} is there, but launchfit did not make it; move it away`,
      );
    await placeRelease(deploy, folder, found.name);
  } finally {
    await rm(folder, { recursive: true, force: true });
    await archive.discard();
  }
}

/** Record what was accepted: the floors, the pin and the keys. */
export async function recordAccepted(
  session: Session,
  found: Found,
  archive: VerifiedArchive | undefined,
): Promise<void> {
  const { deploy, trust, options } = session;
  await saveKeys(deploy, trust.keys);
  const [offer] = found.offers;
  if (offer)
    session.state = accepted(
      session.state,
      offer,
      { app: found.app, line: offer.line, archive },
      options,
    );
  session.state = { ...session.state, pin: trust.pins };
  await writeState(deploy, session.state);
}

/** Everything that VERSION asks for is done: the next conditional look need not read it again. */
export async function recordDone(session: Session, found: Found): Promise<void> {
  const { deploy, folders } = session;
  const etags = Object.fromEntries(
    found.offers.flatMap(({ folder, etag }) => (etag === undefined ? [] : [[folder.url, etag]])),
  );
  if (found.kind === "unchanged") return;
  await clearTemporary(deploy);
  // a VERSION that changes nothing is accepted all the same: nothing older may follow it
  if (found.kind === "current") await recordAccepted(session, found, undefined);
  if (folders.length !== 1) return;
  session.state = { ...session.state, etags };
  await writeState(deploy, session.state);
}

async function ownName(release: string): Promise<string | undefined> {
  try {
    return (await readLaunchConfig(release)).config.app.name;
  } catch (error) {
    throw new Failure(`the release's own configuration is wrong: ${messageOf(error)}`);
  }
}

/** musl is the C library where its loader stands and glibc's does not (process.report tells too, but slowly). */
function isMusl(): boolean {
  const names = ["/lib", "/lib64"].flatMap((folder) => {
    try {
      return readdirSync(folder);
    } catch {
      return [];
    }
  });
  return (
    names.some((name) => name.startsWith("ld-musl-")) &&
    !names.some((name) => name.startsWith("ld-linux"))
  );
}

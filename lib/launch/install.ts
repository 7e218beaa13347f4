import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { shownName } from "../archive/tar.ts";
import { Failure, messageOf, Refused, UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { accepted, checkArchive, maxVersions, mustReplace, versionsToKeep } from "../web-folder/rollback-guard.ts";
import { checkGiven } from "../web-folder/trust.ts";
import { folderUrl, type VerifiedArchive } from "../web-folder/web-folder.ts";
import { configFiles, type LaunchConfig, type ReadLaunchConfig, readLaunchConfig } from "./config.ts";
import { assertOwn, clearTemporary, type DeployDirectory, deployDirectory, lockDirectory } from "./deploy-directory.ts";
import { allFailed, findUpdate, type Update } from "./find-update.ts";
import { writeLaunchFile } from "./launch-file.ts";
import { installedReleases, placeRelease, removeWrongRelease, switchCurrent } from "./releases.ts";
import { type InstallOptions, openSession, type Session } from "./session.ts";
import { writeState } from "./state.ts";
import { unpack } from "../archive/unpack.ts";

/** What `launchfit URL` did. */
export interface Installed {
  name: string;
  version: string;
  release?: string;
  /** The key that must sign everything from now on. */
  key: string[];
  /** false: it was there already. */
  changed: boolean;
  folder: string;
}

/**
 * `launchfit URL`: install what the web folder has as current into a directory, and write launchify.yml.
 * The same again changes nothing. An app that runs is not restarted: that is the work of the launchfit that runs it.
 * @param url may be left out where launchify.yml names the server.
 * @throws {Busy} when another launchfit works in the directory.
 * @throws {Refused} with the reason why the release is not installed.
 */
export async function installInto(
  folder: string,
  url: string | undefined,
  options: InstallOptions,
): Promise<Installed> {
  const deploy = deployDirectory(folder);
  const what = "launchfit install";
  await assertOwn(deploy);
  // what is written wrong is told before anything is touched
  await readSettings(deploy, url);
  await checkGiven(options);
  const lock = await lockDirectory(deploy, what);
  try {
    const settings = await readSettings(deploy, url);
    const session = await openSession(deploy, settings.config, what, options);
    try {
      const update = await findUpdate(session);
      const changed = update.kind === "new";
      if (changed) await addRelease(session, update);
      const { pins, written } = session.trust;
      const missing = (key: string) => settings.origins[key] === "default";
      const found = {
        name: missing("app.name") ? update.app : undefined,
        server: missing("updates.server") ? settings.config.updates.server[0] : undefined,
        pins: missing("updates.gpg") ? pins : undefined,
      };
      await writeLaunchFile(deploy, found, written);
      if (changed) await switchCurrent(deploy, update.name);
      await recordDone(session, update);
      return {
        name: update.name,
        version: update.version,
        ...(update.release === undefined ? {} : { release: update.release }),
        key: [...pins],
        changed,
        folder: deploy.path,
      };
    } finally {
      session.close();
    }
  } finally {
    lock.release();
  }
}

/** The deploy directory's own configuration, with the web folder that the command line names. */
async function readSettings(deploy: DeployDirectory, url: string | undefined): Promise<ReadLaunchConfig> {
  const read = await readLaunchConfig(deploy.path);
  const { updates } = read.config;
  if (url === undefined) return read;
  const server = folderUrl(url);
  const known = updates.server.map(folderUrl);
  if (known.length > 0 && !known.includes(server))
    throw new UsageError(
      `this directory follows ${known.join(", ")}; to follow ${server}, edit updates.server in launchify.yml`,
    );
  if (known.length === 0) updates.server = [server];
  return read;
}

/**
 * Download a new release, verify it, unpack it to releases/, and record it as accepted; nothing is switched. One that
 * is there already, as it was verified before, is only recorded.
 * @throws {Refused} when no folder gives the right bytes, an entry of the archive breaks a rule, it is another app's.
 */
export async function addRelease(session: Session, update: Update): Promise<void> {
  const archive = await fetchArchive(session, update);
  if (!archive) return await recordAccepted(session, update, undefined);
  const { deploy, options } = session;
  const place = join(deploy.releases, update.name);
  const folder = await mkdtemp(join(deploy.temporary, "unpack-"));
  try {
    const name = update.offers[0]?.line.file ?? update.name;
    const { app } = (await readLaunchConfig(deploy.path)).config;
    const release = await unpack(archive.fd, folder, name, {
      strip: (top, hasFile) => mustStrip(app, top, configFiles.some(hasFile)),
      signal: options.signal,
    });
    const { config } = await readLaunchConfig(release).catch((error: unknown) => {
      throw new Failure(`the release's own configuration is wrong: ${messageOf(error)}`);
    });
    const own = config.app.name;
    if (own !== undefined && own !== update.app)
      throw new Refused(`${name} holds the app ${own}, not ${update.app} (wrong software)`);
    if (update.offers[0] && mustReplace(session.state, update.offers[0]))
      await removeWrongRelease(deploy, update.name, session.state.versions[update.version]);
    await recordAccepted(session, update, archive);
    // one that is there without a record was not put there by us
    if (await exists(place)) throw new Refused(`${place} is there, but launchfit did not make it; move it away`);
    await archive.keep();
    await placeRelease(deploy, release, update.name);
  } finally {
    await rm(folder, { recursive: true, force: true });
    await archive.discard();
  }
}

/**
 * Whether an archive's one top folder, as `tar czf app.tar.gz my-app`, npm pack and forges make it, is taken off. Pure.
 * @param app the deploy directory's own configuration: an exec there was written for the archive as it is.
 * @throws {Refused} when nobody says it.
 */
function mustStrip(
  { strip, exec }: Pick<LaunchConfig["app"], "strip" | "exec">,
  top: string | undefined,
  hasConfig: boolean,
): boolean {
  if (strip === 1 && top === undefined)
    throw new Refused("app.strip: 1 is for one top folder, and it has more at its top");
  if (strip === 1) return true;
  if (top === undefined || strip === 0 || exec !== undefined) return false;
  if (hasConfig) return true;
  throw new Refused(
    `all of it is in one folder, "${shownName(top)}"; write app.strip: ` +
      "1 into launchify.yml to take that off, or app.strip: 0 to keep it",
  );
}

/** The verified archive. Undefined: the release is in releases/ already, as it was verified before. */
async function fetchArchive(
  { deploy, state, options, trust }: Session,
  { name, offers }: Update,
): Promise<VerifiedArchive | undefined> {
  const failed: unknown[] = [];
  for (const offer of offers) {
    const { folder, line } = offer;
    const url = folder.name(line.file);
    const known = mustReplace(state, offer) ? undefined : state.versions[line.version];
    if (known && (await exists(join(deploy.releases, name)))) {
      checkArchive(state, offer, known, url, options);
      return undefined;
    }
    let archive: VerifiedArchive | undefined;
    try {
      archive = await folder.archive(line, trust.signers);
      checkArchive(state, offer, archive, url, options);
      return archive;
    } catch (error) {
      await archive?.discard();
      options.signal?.throwIfAborted();
      failed.push(error);
      if (offers.length > failed.length) options.note(`${messageOf(error)}; trying another server`);
    }
  }
  throw allFailed(failed);
}

/** Record what was accepted, the pin and the keys. */
async function recordAccepted(session: Session, update: Update, archive: VerifiedArchive | undefined): Promise<void> {
  const { deploy, trust, options } = session;
  await trust.accept();
  let { state } = session;
  const [offer] = update.offers;
  if (offer) {
    const before = state;
    state = accepted(state, offer, archive, options);
    const { server } = session.config.updates;
    const from = session.folders.map(({ url }) => url);
    const moved = offer.signature && movedTo(offer.file.server, from, options.note);
    if (moved !== undefined) state = { ...state, moved: { from: server, to: moved } };
    // an edit of launchify.yml ends it
    else if (before.moved && before.moved.from.join() !== server.join()) state = { ...state, moved: undefined };
  }
  if (Object.keys(state.versions).length > maxVersions) {
    const installed = await installedReleases(deploy);
    const versions = installed.map((name) => name.slice(update.app.length + 1));
    const keep = new Set([...versions, update.version]);
    state = { ...state, versions: versionsToKeep(state.versions, keep) };
  }
  session.state = { ...state, pin: [...trust.pins] };
  await writeState(deploy, session.state);
}

/**
 * Where a directory looks from now on; undefined: where it does. What was https stays https. Pure.
 * @param note gets what changes, which people should know.
 */
export function movedTo(
  server: string | undefined,
  from: readonly string[],
  note: (line: string) => void,
): string | undefined {
  const to = server === undefined ? undefined : folderUrl(server);
  if (to === undefined || from.includes(to)) return undefined;
  const said = `VERSION of ${from.map(hostOf).join(", ")} names the SERVER ${to}`;
  if (to.startsWith("http:") && from.some((url) => !url.startsWith("http:"))) {
    note(`${said}, which is not https: it is not followed`);
    return undefined;
  }
  note(`${said}: updates come from there now, until updates.server in launchify.yml is edited`);
  return to;
}

const hostOf = (url: string) => new URL(url).host || url;

/** Everything that VERSION asks for is done: the next conditional look need not read it again. */
export async function recordDone(session: Session, update: Update): Promise<void> {
  const { deploy, folders } = session;
  if (update.kind === "unchanged") return;
  await clearTemporary(deploy);
  // a VERSION that changes nothing is accepted all the same: nothing older may follow it
  if (update.kind === "current") await recordAccepted(session, update, undefined);
  if (folders.length !== 1) return;
  const etags = Object.fromEntries(
    update.offers.flatMap(({ folder, etag }) => (etag === undefined ? [] : [[folder.url, etag]])),
  );
  session.state = { ...session.state, etags };
  await writeState(deploy, session.state);
}

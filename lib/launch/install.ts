import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { Failure, messageOf, Refused } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import {
  accepted,
  checkArchive,
  checkSameBytes,
  maxVersions,
  versionsToKeep,
} from "../web-folder/floors.ts";
import { saveKeys } from "../web-folder/trust.ts";
import type { VerifiedArchive } from "../web-folder/web-folder.ts";
import { readLaunchConfig } from "./config.ts";
import {
  bringToDisk,
  clearTemporary,
  installedReleases,
  placeRelease,
} from "./deploy-directory.ts";
import { allFailed } from "./find-update.ts";
import type { Found, Session } from "./session.ts";
import { writeState } from "./state.ts";
import { unpack } from "./unpack.ts";

/** The steps of taking a release, as session.ts lists them. */

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
    // before the release is brought to the disk, which the archive need not reach
    await archive.discard();
    const judge = async () => {
      const own = await ownName(folder);
      if (own !== undefined && own !== found.app)
        throw new Refused(`${name} holds the app ${own}, not ${found.app} (wrong software)`);
      await recordAccepted(session, found, archive);
      // one that is there without a record was not put there by us
      if (await exists(join(deploy.releases, found.name)))
        throw new Refused(
          `${join(deploy.releases, found.name)} is there, but launchfit did not make it; move it away`,
        );
    };
    // the disk takes its time; neither is left behind when the other fails
    const both = await Promise.allSettled([judge(), bringToDisk(folder)]);
    for (const each of both) if (each.status === "rejected") throw each.reason;
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
  await saveKeys(join(deploy.state, "keys"), trust.keys);
  const [offer] = found.offers;
  if (offer)
    session.state = accepted(
      session.state,
      offer,
      { app: found.app, line: offer.line, archive },
      options,
    );
  session.state = { ...session.state, pin: trust.pins };
  const { versions } = session.state;
  if (Object.keys(versions).length > maxVersions) {
    const standing = (await installedReleases(deploy)).map((name) =>
      name.slice(found.app.length + 1),
    );
    const spared = new Set([...standing, found.version]);
    session.state = { ...session.state, versions: versionsToKeep(versions, spared) };
  }
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

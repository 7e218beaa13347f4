import { Refused } from "../core/errors.ts";
import { clockTolerance, type VerifiedSignature } from "../openpgp/verify.ts";
import { type CurrentLine, readArchiveName, type VersionFile } from "./version-file.ts";
import type { SignedVersion, VerifiedArchive } from "./web-folder.ts";

/** What was ever accepted by a client. Times are ISO 8601. */
export interface Accepted {
  app?: string;
  /** A VERSION.sig was seen: from then on there must be one. */
  versionSigned?: boolean;
  /** The newest DATE and signatures that were accepted. */
  floor: { date?: string; version?: string; archive?: string };
  /** EXPIRES of the VERSION that was read last. */
  expires?: string;
  /** By version: the archive that it is; bounded by `versionsToKeep`. */
  versions: Record<string, AcceptedArchive>;
}

/** What an accepted version is. */
export interface AcceptedArchive {
  sha256: string;
  file: string;
  signed: string;
  /** A signed VERSION named its SHA256, so that nobody but the publisher said which version it is. */
  signedSha256?: boolean;
}

/**
 * What may follow what was accepted before. Version strings cannot be ordered, so the signed times decide.
 * Pure: state and offer in, a refusal or a new state out.
 *
 * With a signed VERSION its DATE and signature are the floor: a publisher may point back to an older archive in a
 * newer VERSION (`release withdraw`), nobody else can. Without one the archive's own signature carries everything.
 */
export function checkVersion(
  state: Accepted,
  { file, signature }: Pick<SignedVersion, "file" | "signature">,
  name: string,
  {
    allowDowngrade = false,
    now = new Date(),
  }: { allowDowngrade?: boolean | undefined; now?: Date } = {},
): void {
  if (!signature) {
    if (state.versionSigned)
      throw new Refused(`${name}: VERSION.sig is missing; it was there before, so it is required`);
    return;
  }
  checkExpiry(file.expires?.toISOString(), name, now);
  if (file.date && file.date.getTime() > now.getTime() + clockTolerance)
    throw new Refused(
      `${name} is dated in the future (${file.date.toISOString()}); look at both clocks`,
    );
  if (allowDowngrade) return;
  const { floor } = state;
  for (const [what, offered, lowest] of [
    ["its DATE", file.date?.toISOString(), floor.date],
    ["its signature", signature.created.toISOString(), floor.version],
  ] as const) {
    if (lowest === undefined) continue;
    if (offered === undefined || Date.parse(offered) < Date.parse(lowest))
      throw new Refused(
        `${name} is older than what was accepted before: ${what} is of ${offered ?? "no time"}, the newest seen of ${lowest} (rollback); --allow-downgrade takes it`,
      );
  }
}

/** @throws {Refused} when VERSION's time is over: whoever shows it may be hiding a newer one. */
export function checkExpiry(expires: string | undefined, name: string, now = new Date()): void {
  if (expires !== undefined && Date.parse(expires) < now.getTime())
    throw new Refused(
      `${name} expired at ${expires} (freeze), and by this machine's clock it is ${now.toISOString()}: if that is right, no update is taken until the publisher signs it again (release refresh)`,
    );
}

/** Whether a signed VERSION names the archive by its SHA256; else its name alone says which version it is. */
function hasSignedSha256({ line, signature }: OfferedLine): boolean {
  return signature !== undefined && line.sha256 !== undefined;
}

/** A line of a VERSION, and the signature over that VERSION, if any. */
export interface OfferedLine {
  line: CurrentLine;
  signature?: VerifiedSignature | undefined;
}

/**
 * Check what VERSION alone says of an archive, before it is fetched.
 * @throws {Refused} when the version was accepted with other bytes, or the archive's name is not that version's.
 */
export function checkLine(state: Accepted, offer: OfferedLine, name: string): void {
  const { line } = offer;
  if (hasSignedSha256(offer)) return checkSameBytes(state, offer, line.sha256 ?? "");
  if (!readArchiveName(line.file, line.version))
    throw new Refused(
      `${name}: ${line.file} is not named as version ${line.version} (APP-${line.version}.tar.gz), and no signed SHA256 says that it is (mix-and-match)`,
    );
}

/**
 * One version, one content, for ever. A record that was made on the word of a name yields to a signed SHA256, and
 * one that is plainly wrong to the bytes that come now.
 */
function checkSameBytes(state: Accepted, offer: OfferedLine, sha256: string): void {
  const { version } = offer.line;
  const known = state.versions[version];
  if (!known || known.sha256 === sha256) return;
  if (isDoubtful(state, version) || (hasSignedSha256(offer) && !isSigned(state, known))) return;
  throw new Refused(
    `version ${version} was accepted before with other bytes (SHA-256 ${known.sha256}, now ${sha256})`,
  );
}

/** Records of former versions do not say it; a folder whose VERSION was signed had SHA256 in it. */
function isSigned(state: Accepted, { signedSha256 = state.versionSigned }: AcceptedArchive) {
  return signedSha256 === true;
}

/**
 * Whether what is recorded of a version cannot be right: a launchfit that took an unsigned VERSION at its word
 * recorded the bytes of one version under the name of another.
 */
export function isDoubtful(state: Accepted, version: string): boolean {
  const known = state.versions[version];
  if (!known || isSigned(state, known)) return false;
  return !readArchiveName(known.file, version) || holderOf(state, version, known) !== undefined;
}

/** Whether what is recorded of the offered version is to be replaced by what is offered. */
export function mustReplace(state: Accepted, offer: OfferedLine): boolean {
  const { version, sha256 } = offer.line;
  const known = state.versions[version];
  if (!known) return false;
  return hasSignedSha256(offer) ? known.sha256 !== sha256 : isDoubtful(state, version);
}

/** What the offered archive is, as far as that is known before it is fetched: by a signed VERSION, or by what is recorded. */
export function offeredSha256(state: Accepted, offer: OfferedLine): string | undefined {
  if (hasSignedSha256(offer)) return offer.line.sha256;
  return mustReplace(state, offer) ? undefined : state.versions[offer.line.version]?.sha256;
}

/** Another version that has the same bytes, or a signature of the same time. */
function holderOf(
  { versions }: Accepted,
  version: string,
  { sha256, signed }: Pick<AcceptedArchive, "sha256" | "signed">,
): string | undefined {
  return Object.entries(versions).find(
    ([other, known]) => other !== version && (known.sha256 === sha256 || known.signed === signed),
  )?.[0];
}

/**
 * Check an archive that was fetched and whose signature is good. Without a signed VERSION the time of the archive's
 * signature is the floor; without a signed SHA256 its bytes must be nobody else's.
 * @param name the archive's, for messages.
 * @throws {Refused} with the reason.
 */
export function checkArchive(
  state: Accepted,
  offer: OfferedLine,
  archive: { sha256: string; signed: string },
  name: string,
  { allowDowngrade = false }: { allowDowngrade?: boolean | undefined } = {},
): void {
  const { version } = offer.line;
  checkSameBytes(state, offer, archive.sha256);
  if (hasSignedSha256(offer)) return;
  const isKnown = state.versions[version]?.sha256 === archive.sha256;
  // a publisher may point back to what was accepted, if VERSION is signed
  const mayBeOlder = (offer.signature && isKnown) || allowDowngrade;
  const lowest = state.floor.archive;
  if (!mayBeOlder && lowest !== undefined && Date.parse(archive.signed) < Date.parse(lowest))
    throw new Refused(
      `${name} was signed at ${archive.signed}, before the newest accepted here, ${lowest} (rollback); --allow-downgrade takes it`,
    );
  const holder = holderOf(state, version, archive);
  if (holder !== undefined)
    throw new Refused(
      `${name} has the bytes, or the time of the signature, of version ${holder}, and no signed SHA256 says that it is ${version} (mix-and-match)`,
    );
}

/** The state after a VERSION, and with it an archive, was accepted. A downgrade that was asked for sets the floors again. */
export function accepted<State extends Accepted>(
  state: State,
  version: { file: VersionFile; signature?: VerifiedSignature | undefined },
  release: {
    app: string;
    line: CurrentLine;
    archive?: Pick<VerifiedArchive, "sha256" | "signature"> | undefined;
  },
  { allowDowngrade = false }: { allowDowngrade?: boolean | undefined } = {},
): State {
  const { line, archive, app } = release;
  const { signature, file } = version;
  const newest = allowDowngrade ? (_: unknown, offered: string | undefined) => offered : later;
  const entry = archive
    ? {
        sha256: archive.sha256,
        file: line.file,
        signed: archive.signature.created.toISOString(),
        signedSha256: hasSignedSha256({ line, signature }),
      }
    : state.versions[line.version];
  const floor = {
    date: signature ? newest(state.floor.date, file.date?.toISOString()) : state.floor.date,
    version: signature
      ? newest(state.floor.version, signature.created.toISOString())
      : state.floor.version,
    archive: entry ? newest(state.floor.archive, entry.signed) : state.floor.archive,
  };
  const { expires: _, ...rest } = state;
  return {
    ...rest,
    app,
    ...(signature || state.versionSigned ? { versionSigned: true } : {}),
    ...(signature && file.expires ? { expires: file.expires.toISOString() } : {}),
    floor,
    versions: { ...state.versions, ...(entry ? { [line.version]: entry } : {}) },
  } as State;
}

/** How many accepted versions are remembered, besides those that are installed. */
export const maxVersions = 500;

/**
 * The versions to remember, so that the state of an app that is published every hour does not grow for ever: those
 * whose archives were signed last, and the spared ones. A forgotten one is no way back to old bytes: the floors, which
 * are never forgotten, still refuse what was signed earlier.
 */
export function versionsToKeep(
  versions: Accepted["versions"],
  spared: ReadonlySet<string>,
  max = maxVersions,
): Accepted["versions"] {
  const newestFirst = Object.entries(versions).sort(
    ([, a], [, b]) => Date.parse(b.signed) - Date.parse(a.signed),
  );
  return Object.fromEntries(
    newestFirst.filter(([version], index) => index < max || spared.has(version)),
  );
}

/** The later of two ISO times. */
function later(one: string | undefined, other: string | undefined): string | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return Date.parse(one) >= Date.parse(other) ? one : other;
}

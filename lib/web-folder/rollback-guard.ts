import { type Infer, y } from "../config/yaml.ts";
import { Refused } from "../core/errors.ts";
import { clockTolerance } from "../openpgp/verify.ts";
import { type CurrentLine, readArchiveName } from "./version-file.ts";
import type { SignedVersion, VerifiedArchive } from "./web-folder.ts";

/**
 * What may follow what was accepted before. Version strings cannot be ordered, so the signed times decide.
 * Pure: state and offer in, a refusal or a new state out.
 *
 * With a signed VERSION its DATE and signature must not go back: a publisher may point back to an older archive in a
 * newer VERSION (`release withdraw`), nobody else can. Without one the archive's own signature carries everything.
 */

/** What an accepted version is. */
const acceptedArchive = y.object({
  sha256: y.string(),
  file: y.string(),
  signed: y.string(),
  /** A signed VERSION named its SHA256, so that nobody but the publisher said which version it is. */
  signedSha256: y.optional(y.boolean()),
});

/** What was ever accepted by a client, as the keys of a file. Times are ISO 8601. */
export const acceptedKeys = {
  app: y.optional(y.string()),
  /** A VERSION.sig was seen: from then on there must be one. */
  versionSigned: y.optional(y.boolean()),
  /** EXPIRES of the VERSION that was read last. */
  expires: y.optional(y.string()),
  /** The newest DATE and signatures that were accepted. */
  floor: y.object({ date: y.optional(y.string()), version: y.optional(y.string()), archive: y.optional(y.string()) }),
  /** By version: the archive that it is; bounded by `versionsToKeep`. */
  versions: y.record(acceptedArchive),
};

const acceptedState = y.object(acceptedKeys);
export type Accepted = Infer<typeof acceptedState>;

/** A VERSION, and the line of it that is for this machine. */
export interface Offered extends SignedVersion {
  line: CurrentLine;
}

/** The archive's SHA256 in a signed VERSION; undefined: its name alone says which version it is. */
function signedSha256({ line, signature }: Pick<Offered, "line" | "signature">): string | undefined {
  return signature && line.sha256;
}

/** @throws {Refused} when VERSION is older than what was accepted, expired, or not signed any more. */
export function checkVersion(
  state: Accepted,
  { file, signature }: Pick<SignedVersion, "file" | "signature">,
  name: string,
  { allowDowngrade = false, now = new Date() }: { allowDowngrade?: boolean | undefined; now?: Date } = {},
): void {
  if (!signature) {
    if (state.versionSigned)
      throw new Refused(`${name}: VERSION.sig is missing; it was there before, so it is required`);
    return;
  }
  checkExpiry(file.expires?.toISOString(), name, now);
  if (file.date && file.date.getTime() > now.getTime() + clockTolerance)
    throw new Refused(`${name} is dated in the future (${file.date.toISOString()}); look at both clocks`);
  if (allowDowngrade) return;
  const { floor } = state;
  for (const [what, offered, lowest] of [
    ["its DATE", file.date?.toISOString(), floor.date],
    ["its signature", signature.created.toISOString(), floor.version],
  ] as const) {
    if (lowest === undefined) continue;
    if (offered === undefined || Date.parse(offered) < Date.parse(lowest))
      throw new Refused(
        `${name} is older than what was accepted before: ${what} is of ${offered ?? "no time"}, the newest seen of ` +
          `${lowest} (rollback); --allow-downgrade takes it`,
      );
  }
}

/** @throws {Refused} when VERSION's time is over: whoever shows it may be hiding a newer one. */
export function checkExpiry(expires: string | undefined, name: string, now = new Date()): void {
  if (expires !== undefined && Date.parse(expires) < now.getTime())
    throw new Refused(
      `${name} expired at ${expires} (freeze), and by this machine's clock it is ${now.toISOString()}: ` +
        "if that is right, no update is taken until the publisher signs it again (release refresh)",
    );
}

/**
 * Check what VERSION alone says of an archive, before it is fetched.
 * @throws {Refused} when the version was accepted with other bytes, or the archive's name is not that version's.
 */
export function checkLine(state: Accepted, offer: Pick<Offered, "line" | "signature">, name: string): void {
  const { file, version } = offer.line;
  const sha256 = signedSha256(offer);
  if (sha256 !== undefined) checkSameBytes(state, offer, sha256);
  else if (!readArchiveName(file, version))
    throw new Refused(
      `${name}: ${file} is not named as version ${version} (APP-${version}.tar.gz), and no signed SHA256 says that ` +
        "it is (mix-and-match)",
    );
}

/** One version, one content, for ever. A record that was made on the word of a name yields to a signed SHA256. */
function checkSameBytes(state: Accepted, offer: Pick<Offered, "line" | "signature">, sha256: string): void {
  const { version } = offer.line;
  const known = state.versions[version];
  if (!known || known.sha256 === sha256) return;
  if (signedSha256(offer) !== undefined && !known.signedSha256) return;
  throw new Refused(`version ${version} was accepted before with other bytes (SHA-256 ${known.sha256}, now ${sha256})`);
}

/** Whether what is recorded of the offered version is to be replaced by what is offered. */
export function mustReplace(state: Accepted, offer: Offered): boolean {
  const known = state.versions[offer.line.version]?.sha256;
  return known !== undefined && known !== (signedSha256(offer) ?? known);
}

/** What the offered archive is, as far as known before it is fetched: by a signed VERSION, or by what is recorded. */
export function offeredSha256(state: Accepted, offer: Offered): string | undefined {
  return signedSha256(offer) ?? state.versions[offer.line.version]?.sha256;
}

/**
 * Check an archive that was fetched and whose signature is good. Without a signed VERSION the time of the archive's
 * signature must not go back; without a signed SHA256 its bytes must be nobody else's.
 * @param name the archive's, for messages.
 * @throws {Refused} with the reason.
 */
export function checkArchive(
  state: Accepted,
  offer: Offered,
  { sha256, signed }: Pick<VerifiedArchive, "sha256" | "signed">,
  name: string,
  { allowDowngrade = false }: { allowDowngrade?: boolean | undefined } = {},
): void {
  const { version } = offer.line;
  checkSameBytes(state, offer, sha256);
  if (signedSha256(offer) !== undefined) return;
  const isKnown = state.versions[version]?.sha256 === sha256;
  // a publisher may point back to what was accepted, if VERSION is signed
  const mayBeOlder = (offer.signature && isKnown) || allowDowngrade;
  const lowest = state.floor.archive;
  if (!mayBeOlder && lowest !== undefined && Date.parse(signed) < Date.parse(lowest))
    throw new Refused(
      `${name} was signed at ${signed}, before the newest accepted here, ${lowest} (rollback); ` +
        "--allow-downgrade takes it",
    );
  const holder = Object.entries(state.versions).find(
    ([other, known]) => other !== version && (known.sha256 === sha256 || known.signed === signed),
  );
  if (holder)
    throw new Refused(
      `${name} has the bytes, or the time of the signature, of version ${holder[0]}, and no signed SHA256 says ` +
        `that it is ${version} (mix-and-match)`,
    );
}

/**
 * The state after a VERSION, and with it an archive, was accepted. A downgrade that was asked for takes the times back.
 * @param archive undefined: the one that is recorded.
 */
export function accepted<State extends Accepted>(
  state: State,
  offer: Offered & { app: string },
  archive: Pick<VerifiedArchive, "sha256" | "signed"> | undefined,
  { allowDowngrade = false }: { allowDowngrade?: boolean | undefined } = {},
): State {
  const { line, app, signature, file } = offer;
  const newest = allowDowngrade ? (_: unknown, offered: string | undefined) => offered : later;
  const entry: Infer<typeof acceptedArchive> | undefined = archive
    ? {
        ...{ sha256: archive.sha256, file: line.file, signed: archive.signed },
        signedSha256: signedSha256(offer) !== undefined,
      }
    : state.versions[line.version];
  const floor = {
    date: signature ? newest(state.floor.date, file.date?.toISOString()) : state.floor.date,
    version: signature ? newest(state.floor.version, signature.created.toISOString()) : state.floor.version,
    archive: entry ? newest(state.floor.archive, entry.signed) : state.floor.archive,
  };
  return {
    ...state,
    app,
    versionSigned: signature ? true : state.versionSigned,
    expires: signature && file.expires?.toISOString(),
    floor,
    versions: { ...state.versions, ...(entry ? { [line.version]: entry } : {}) },
  };
}

/** How many accepted versions are remembered, besides those that are installed. */
export const maxVersions = 500;

/**
 * The versions to remember, so that the state of an app that is published every hour does not grow for ever: those
 * whose archives were signed last, and the spared ones. A forgotten one is no way back to old bytes: the newest times,
 * which are never forgotten, still refuse what was signed earlier.
 */
export function versionsToKeep(versions: Accepted["versions"], spared: ReadonlySet<string>): Accepted["versions"] {
  const newestFirst = Object.entries(versions).sort(([, a], [, b]) => Date.parse(b.signed) - Date.parse(a.signed));
  return Object.fromEntries(newestFirst.filter(([version], index) => index < maxVersions || spared.has(version)));
}

/** The later of two ISO times. */
function later(one: string | undefined, other: string | undefined): string | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return Date.parse(one) >= Date.parse(other) ? one : other;
}

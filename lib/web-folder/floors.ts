import { Refused } from "../core/errors.ts";
import { clockTolerance, type VerifiedSignature } from "../openpgp/verify.ts";
import type { CurrentLine, VersionFile } from "./version-file.ts";
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
  versions: Record<string, { sha256: string; file: string; signed: string }>;
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
      `${name} expired at ${expires} (freeze): no update is taken until the publisher signs it again (release refresh)`,
    );
}

/** One version, one content, for ever. */
export function checkSameBytes(
  state: Accepted,
  line: CurrentLine,
  sha256: string | undefined,
): void {
  const known = state.versions[line.version];
  if (known && sha256 !== undefined && known.sha256 !== sha256)
    throw new Refused(
      `version ${line.version} was accepted before with other bytes (SHA-256 ${known.sha256}, now ${sha256})`,
    );
}

/** The floor of folders without a signed VERSION: the time of the archive's signature. */
export function checkArchive(
  state: Accepted,
  signature: VerifiedSignature | undefined,
  signed: string,
  name: string,
  { allowDowngrade = false }: { allowDowngrade?: boolean | undefined } = {},
): void {
  const lowest = state.floor.archive;
  if (signature || allowDowngrade || lowest === undefined) return;
  if (Date.parse(signed) < Date.parse(lowest))
    throw new Refused(
      `${name} was signed at ${signed}, before the newest accepted here, ${lowest} (rollback); --allow-downgrade takes it`,
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
  const newest = allowDowngrade ? (_: unknown, offered: string | undefined) => offered : later;
  const known = state.versions[line.version];
  const entry = archive
    ? { sha256: archive.sha256, file: line.file, signed: archive.signature.created.toISOString() }
    : known;
  const { signature, file } = version;
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
    floor: Object.fromEntries(Object.entries(floor).filter(([, time]) => time !== undefined)),
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

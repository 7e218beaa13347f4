import { type Infer, y } from "../config/yaml.ts";
import { Refused } from "../core/errors.ts";
import { clockTolerance } from "../openpgp/verify.ts";
import { maxKeys, type VersionFile } from "./version-file.ts";

/**
 * The keys that a client trusts, and how a publisher changes them. VERSION holds the number of its set of keys and the
 * whole set; `keys/N` is a copy of the VERSION that made set N. A client goes from its own set to VERSION's one step at
 * a time. What a client refuses and why is in docs/signatures.md. Pure: set and step in, a refusal or the next set out.
 */
export const keySet = y.object({
  serial: y.number(),
  keys: y.list(y.string()),
  roots: y.list(y.string()),
  revoked: y.list(y.string()),
  /** DATE of the step that made it, ISO 8601; none where no step did. */
  date: y.optional(y.string()),
});

export type KeySet = Infer<typeof keySet>;

/** How many steps a client goes at once: one that is shown more was away too long, or is lied to. */
export const maxSteps = 100;

/** What is trusted before any set was seen: the pinned keys. */
export function pinnedSet(pins: readonly string[]): KeySet {
  return { serial: 0, keys: [...pins], roots: [], revoked: [], date: undefined };
}

/** What a step is judged by besides the set before it. */
export interface StepContext {
  /** The app's name; undefined where none is known yet. */
  app: string | undefined;
  /** For messages: `URL/keys/N`. */
  name: string;
  now?: Date;
}

/** A `keys/N` as it was read, and the fingerprints of those whose signatures over it are good. */
export interface KeyStep {
  file: VersionFile;
  signedBy: ReadonlySet<string>;
}

/**
 * The set after one step.
 * @param serial the number that the step must have: its file's.
 * @throws {Refused} when the keys that are trusted now do not allow it.
 */
export function nextKeySet(set: KeySet, step: KeyStep, context: StepContext): KeySet {
  const { name } = context;
  const { signedBy } = step;
  const next = readStep(step.file, set.serial + 1, context);
  const refuse = (why: string) => new Refused(`${name} is not accepted: ${why}`);
  const back = [...next.keys, ...next.roots].find((key) => set.revoked.includes(key));
  if (back !== undefined) throw refuse(`it brings back the key ${back}, which is revoked`);
  if (set.roots.length > 0 && next.roots.length === 0) throw refuse("it takes the last ROOT away");
  // with a ROOT nobody else changes the set
  const before = set.roots.length > 0 ? set.roots : set.keys;
  if (!before.some((key) => signedBy.has(key) && !set.revoked.includes(key)))
    throw refuse(`none of the keys trusted before has signed it (${before.join(", ")})`);
  // who can sign with it has the key, and has not copied a fingerprint
  for (const [word, now, old] of [
    ["KEY", next.keys, set.keys],
    ["ROOT", next.roots, set.roots],
  ] as const)
    for (const key of now)
      if (!old.includes(key) && !signedBy.has(key)) throw refuse(`the new ${word} ${key} has not signed it`);
  if (set.date !== undefined && Date.parse(next.date ?? "") < Date.parse(set.date))
    throw refuse(`its DATE ${next.date} is before that of the step before it, ${set.date}`);
  return { ...next, revoked: [...new Set([...set.revoked, ...next.revoked])] };
}

/**
 * Where a client begins that knows no set yet: with the newest step that a pinned key signed and that names this key.
 * Undefined: this step is not one.
 */
export function firstKeySet(
  pins: readonly string[],
  serial: number,
  { file, signedBy }: KeyStep,
  context: StepContext,
): KeySet | undefined {
  const named = [...(file.keys?.keys ?? []), ...(file.keys?.roots ?? [])];
  if (!pins.some((pin) => signedBy.has(pin) && named.includes(pin))) return undefined;
  return readStep(file, serial, context);
}

/** What a step says, as far as it can be judged alone. */
function readStep(file: VersionFile, serial: number, { app, name, now = new Date() }: StepContext) {
  const refuse = (why: string) => new Refused(`${name} is not accepted: ${why}`);
  const { keys: lines, date } = file;
  if (lines?.serial !== serial)
    throw refuse(`it says KEYS ${lines?.serial ?? "nothing"}, not ${serial} (gap in the keys)`);
  if (app !== undefined && file.app !== app)
    throw refuse(`it is for the app ${file.app ?? "without a name"}, not for ${app}`);
  const { keys, roots, revoked } = lines;
  if (keys.length === 0) throw refuse("it leaves no KEY");
  if (keys.length + roots.length > maxKeys) throw refuse(`it names more than ${maxKeys} keys`);
  const both = keys.find((key) => roots.includes(key));
  if (both !== undefined) throw refuse(`${both} is KEY and ROOT`);
  const torn = [...keys, ...roots].find((key) => revoked.includes(key));
  if (torn !== undefined) throw refuse(`it names and revokes the key ${torn}`);
  if (!date) throw refuse("it has no DATE");
  if (date.getTime() > now.getTime() + clockTolerance)
    throw refuse(`it is from the future (${date.toISOString()}); look at both clocks`);
  return { ...lines, date: date.toISOString() };
}

/**
 * How many steps a VERSION is ahead of the set.
 * @throws {Refused} when it is behind, or too many ahead.
 */
export function stepsAhead(set: KeySet, { keys }: VersionFile, name: string): number {
  const ahead = (keys?.serial ?? 0) - set.serial;
  if (ahead < 0)
    throw new Refused(
      `${name} says ${keys ? `KEYS ${keys.serial}` : "no KEYS"}; ` +
        `KEYS ${set.serial} was accepted before (rollback of the keys)`,
    );
  if (ahead > maxSteps)
    throw new Refused(
      `${name} is ${ahead} sets of keys ahead of KEYS ${set.serial}, more than ${maxSteps} (endless data); ` +
        "begin anew with the key that the publisher names (docs/signatures.md)",
    );
  return ahead;
}

/** @throws {Refused} when VERSION names other keys than the set of its number. */
export function checkKeyLines(set: KeySet, { keys: lines }: VersionFile, name: string): void {
  if (lines && !(isSameSet(lines.keys, set.keys) && isSameSet(lines.roots, set.roots)))
    throw new Refused(
      `${name} names other keys than those of KEYS ${set.serial} that are trusted here; ` +
        "if the publisher says that it is right, begin anew with its key (docs/signatures.md)",
    );
}

export function isSameSet(one: readonly string[], other: readonly string[]): boolean {
  return [...one].sort().join() === [...other].sort().join();
}

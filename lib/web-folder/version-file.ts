import { cleanLine } from "../core/clean.ts";
import { Refused, UsageError } from "../core/errors.ts";

/**
 * The VERSION file of a web folder, read and written. Pure.
 *
 *     CURRENT 1.23.42b my-app-gnu-linux-1.23.42b.tar.gz
 *     PLATFORM gnu-linux
 *     SHA256 9f86…
 *     SIZE 123456
 *     INDEX 5d0c…
 *     APP my-app
 *     SERVER https://example.org/app-updates/
 *     RELEASE icecream-soda-popsticle
 *     DATE 2026-11-20T10:15:00Z
 *     EXPIRES 2027-02-18T10:15:00Z
 *     KEYS 3
 *     KEY 0123456789ABCDEF0123456789ABCDEF01234567
 *     KEY-REVOKED …
 *     ROOT …
 *
 * Only CURRENT must be there. PLATFORM, SHA256, SIZE and INDEX belong to the CURRENT before them. KEYS is the number of
 * the set of keys that follows it (key-set.ts).
 * Lines with other words are ignored, so that a later version can say more.
 */
export interface VersionFile {
  current: CurrentLine[];
  /** What people call this release. */
  release?: string;
  app?: string;
  /** Where clients look from now on, in place of the address that they have. */
  server?: string;
  /** When it was signed. */
  date?: Date;
  /** When it stops being news. */
  expires?: Date;
  /** Who may sign; undefined: whoever clients have pinned. */
  keys?: KeyLines;
}

/** The lines KEYS, KEY, KEY-REVOKED and ROOT, which change together. Fingerprints are upper-case hex. */
export interface KeyLines {
  /** Sets are numbered from 1. */
  serial: number;
  /** Sign VERSION and archives. */
  keys: string[];
  /** Where there are any, these alone change the set. They sign nothing else. */
  roots: string[];
  revoked: string[];
}

export interface CurrentLine {
  version: string;
  /** The archive's name, a plain one beside VERSION. */
  file: string;
  /** None: it fits any. */
  platform?: string;
  /** Lower-case hex. */
  sha256?: string;
  /** Bytes. */
  size?: number;
  /** Of the archive's index (archive-index.ts), lower-case hex. */
  index?: string;
}

/** What a VERSION file may weigh, in bytes. */
export const maxVersionFile = 64 * 1024;

/** Keys that count at one time: a signature file holds no more signatures. */
export const maxKeys = 16;

export const platforms = ["gnu-linux", "linux-musl", "darwin", "windows"] as const;

/** Dotted hexadecimal: `1.23.42b`. */
export function isVersion(text: string): boolean {
  return text.length <= 100 && /^[0-9a-f]+(?:\.[0-9a-f]+)*$/i.test(text);
}

/** What `isAppName` takes, as editors are told. */
export const appNames = /^(?!.*\.\.)[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,98}[A-Za-z0-9+])?$/;

/** An app's name: it becomes part of file and folder names. */
export function isAppName(text: string): boolean {
  return appNames.test(text);
}

/** A plain name: no path, no URL, nothing a shell or a file system reads specially. */
const archiveNames = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,240}\.(?:tar\.gz|tgz)$/;

/** `my-app-gnu-linux-1.23.42b.tar.gz`; without a platform `my-app-1.23.42b.tar.gz`. */
export function archiveName(app: string, version: string, platform?: string): string {
  return `${[app, ...(platform ? [platform] : []), version].join("-")}.tar.gz`;
}

/** What an archive's name says, as far as it follows the form above. */
export function readArchiveName(file: string, version: string): { app: string; platform?: string } | undefined {
  const end = [`-${version}.tar.gz`, `-${version}.tgz`].find((each) => file.endsWith(each));
  if (end === undefined) return undefined;
  const rest = file.slice(0, -end.length);
  const platform = platforms.find((each) => rest.endsWith(`-${each}`));
  const app = platform === undefined ? rest : rest.slice(0, -platform.length - 1);
  if (!isAppName(app)) return undefined;
  return { app, ...(platform === undefined ? {} : { platform }) };
}

/**
 * Read a VERSION file: strict about everything that names or measures something, tolerant about the rest
 * (unknown words, blank lines, line ends, `#` comments).
 * @param name for messages, as `URL/VERSION`.
 * @throws {Refused} with the line.
 */
export function parseVersionFile(text: string, name: string): VersionFile {
  const result: VersionFile = { current: [] };
  const seen = new Set<string>();
  for (const [index, line] of text.split("\n").entries()) {
    const [word = "", ...rest] = line.trim().split(/[ \t]+/);
    const said = rest.join(" ");
    const refuse = (why: string) => new Refused(`${name}:${index + 1}: ${why}`);
    const take = (pattern: RegExp, what: string): string => {
      if (pattern.test(said)) return said;
      throw refuse(`${word} is not followed by ${what}: "${shown(said)}"`);
    };
    const once = (what: string, where = "") => {
      if (seen.has(what)) throw refuse(`${what} is there twice${where}`);
      seen.add(what);
    };
    const last = result.current.at(-1);
    if (word === "CURRENT") {
      const [version = "", file = ""] = rest;
      if (rest.length !== 2) throw refuse(`CURRENT takes a version and a file name, got "${shown(said)}"`);
      if (!isVersion(version)) throw refuse(`"${shown(version)}" is not a version (dotted hexadecimal)`);
      if (!archiveNames.test(file)) throw refuse(`"${shown(file)}" is not a plain name of a .tar.gz`);
      result.current.push({ version, file });
      for (const each of ofCurrent) seen.delete(each);
    } else if (ofCurrent.includes(word)) {
      if (!last) throw refuse(`${word} comes before the first CURRENT`);
      once(word, " for one CURRENT");
      if (word === "PLATFORM") last.platform = take(/^[a-z0-9][a-z0-9_-]{0,40}$/, "a platform's name");
      if (word === "SHA256") last.sha256 = take(/^[0-9a-f]{64}$/i, "64 hex digits").toLowerCase();
      if (word === "INDEX") last.index = take(/^[0-9a-f]{64}$/i, "64 hex digits").toLowerCase();
      if (word === "SIZE") last.size = Number(take(/^\d{1,15}$/, "a number of bytes"));
    } else if (["APP", "SERVER", "RELEASE", "DATE", "EXPIRES", "KEYS"].includes(word)) {
      once(word);
      if (word === "APP" && !isAppName(said)) throw refuse(`"${shown(said)}" is not an app's name`);
      if (word === "APP") result.app = said;
      if (word === "SERVER" && !(/^https?:\/\//.test(said) && said.length <= 2000 && URL.canParse(said)))
        throw refuse(`"${shown(said)}" is not an https or http URL`);
      if (word === "SERVER") result.server = said;
      if (word === "RELEASE") result.release = shown(said);
      if (word === "DATE" || word === "EXPIRES") {
        const time = take(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?Z$/, "a time as 2026-11-20T10:15:00Z");
        const date = new Date(time);
        if (Number.isNaN(date.getTime())) throw refuse(`"${time}" is not a time`);
        result[word === "DATE" ? "date" : "expires"] = date;
      }
      if (word === "KEYS") {
        const serial = Number(take(/^[1-9]\d{0,8}$/, "the number of a set of keys"));
        result.keys = { serial, keys: [], roots: [], revoked: [] };
      }
    } else if (isKeyWord(word)) {
      if (!result.keys) throw refuse(`${word} comes before KEYS`);
      const list = result.keys[keyWords[word]];
      const fingerprint = take(/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/i, "a fingerprint").toUpperCase();
      once(`${word} ${fingerprint}`);
      if (word !== "KEY-REVOKED" && list.length === maxKeys) throw refuse(`more than ${maxKeys} lines of ${word}`);
      list.push(fingerprint);
    }
  }
  if (result.current.length === 0)
    throw new Refused(`${name} has no CURRENT line; is the address that of a web folder?`);
  const names = result.current.map(({ platform }) => platform ?? "");
  if (names.some((platform) => platform !== "") && new Set(names).size < names.length)
    throw new Refused(`${name} has two CURRENT lines for one platform`);
  return result;
}

/** What is said of the CURRENT before it. */
const ofCurrent = ["PLATFORM", "SHA256", "SIZE", "INDEX"];

const keyWords = { KEY: "keys", ROOT: "roots", "KEY-REVOKED": "revoked" } as const;

const isKeyWord = (word: string): word is keyof typeof keyWords => Object.hasOwn(keyWords, word);

/** Text from outside, fit for a message. */
const shown = (text: string) => cleanLine(text.slice(0, 120));

/**
 * The CURRENT line for a platform: its own, else one for any.
 * A folder as the founding document draws it has no PLATFORM lines: the archives' names tell; a single one fits any.
 * @throws {Refused} when there is none.
 */
export function currentFor(file: VersionFile, platform: string, name: string): CurrentLine {
  const any = file.current.filter((line) => line.platform === undefined);
  const named = (line: CurrentLine) => readArchiveName(line.file, line.version)?.platform;
  const plain = any.filter((line) => any.length === 1 || named(line) === undefined);
  const found =
    file.current.find((line) => line.platform === platform) ??
    any.find((line) => named(line) === platform) ??
    (plain.length === 1 ? plain[0] : undefined);
  if (found) return found;
  throw new Refused(
    plain.length > 1
      ? `${name} has several CURRENT lines for any platform`
      : `${name} has no release for ${platform}, only for ` +
          `${file.current.map((line) => line.platform ?? line.file).join(", ")}`,
  );
}

/** The platform that this process runs on, in VERSION's words. */
export function thisPlatform(system: string, musl: boolean): string {
  if (system === "linux") return musl ? "linux-musl" : "gnu-linux";
  return system === "win32" ? "windows" : system;
}

/** The text of a VERSION file. */
export function formatVersionFile(file: VersionFile): string {
  const lines = file.current.flatMap(({ version, file: archive, platform, sha256, size, index }) => [
    `CURRENT ${version} ${archive}`,
    ...(platform === undefined ? [] : [`PLATFORM ${platform}`]),
    ...(sha256 === undefined ? [] : [`SHA256 ${sha256}`]),
    ...(size === undefined ? [] : [`SIZE ${size}`]),
    ...(index === undefined ? [] : [`INDEX ${index}`]),
  ]);
  if (file.app !== undefined) lines.push(`APP ${file.app}`);
  if (file.server !== undefined) lines.push(`SERVER ${file.server}`);
  if (file.release !== undefined) {
    if (/[\r\n]/.test(file.release)) throw new UsageError("a release's name is one line");
    lines.push(`RELEASE ${file.release}`);
  }
  if (file.date) lines.push(`DATE ${seconds(file.date)}`);
  if (file.expires) lines.push(`EXPIRES ${seconds(file.expires)}`);
  if (file.keys) {
    lines.push(`KEYS ${file.keys.serial}`);
    for (const [word, list] of Object.entries(keyWords))
      lines.push(...(file.keys[list] ?? []).map((fingerprint) => `${word} ${fingerprint}`));
  }
  return `${lines.join("\n")}\n`;
}

function seconds(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, "Z");
}

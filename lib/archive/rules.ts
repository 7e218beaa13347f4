import { Refused } from "../core/errors.ts";
import { shownName } from "./tar.ts";

/**
 * Which names and links an archive may hold. The rest is refused when an archive is unpacked, and
 * therefore also when it is packed. Pure.
 */

const forbidden = /[\u0000-\u001f\u007f\\\ufffd]/;

/** Levels of folders. */
const maxDepth = 64;

/**
 * The path below the archive's folder, normalised; "" for the folder itself.
 * @throws {Refused} when it leads elsewhere, or is a name that some file system would read differently.
 */
export function checkedPath(given: string): string {
  const refuse = (why: string) => new Refused(`"${shownName(given)}" ${why}`);
  if (forbidden.test(given)) {
    if (given.includes("\\")) throw refuse("has a backslash in its name");
    throw refuse(given.includes("\ufffd") ? "is not named in UTF-8" : "has control characters in its name");
  }
  if (given === "" || given.startsWith("/") || /^[A-Za-z]:\//.test(given)) throw refuse("is absolute or empty");
  const parts = given.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.includes("..")) throw refuse("leads out of the archive");
  if (parts.length > maxDepth) throw refuse(`is deeper than ${maxDepth} folders`);
  if (parts.some((part) => part.length > 63 && Buffer.byteLength(part) > 255)) throw refuse("has too long a name");
  return parts.join("/");
}

/**
 * A symbolic link's target. It may lead anywhere inside the archive. `..` is allowed only at its start: after a
 * name it would be resolved from wherever that name, itself perhaps a link, leads to.
 * @param path the link's own, as `checkedPath` gives it.
 * @throws {Refused} when it leads out.
 */
export function checkedTarget(path: string, target: string): string {
  const refuse = (why: string) => new Refused(`"${shownName(path)}" is a link ${why}: "${shownName(target)}"`);
  if (target === "" || forbidden.test(target)) throw refuse("with an empty target or one with forbidden characters");
  if (target.startsWith("/") || /^[A-Za-z]:/.test(target)) throw refuse("to an absolute path");
  const parts = target.split("/").filter((part) => part !== "" && part !== ".");
  const down = parts.findIndex((part) => part !== "..");
  const ups = down < 0 ? parts.length : down;
  if (parts.includes("..", ups)) throw refuse("with .. after a name");
  if (ups > path.split("/").length - 1) throw refuse("that leads out of the archive");
  return target;
}

/** A path to a file system that ignores case and Unicode form: two with the same cannot both be unpacked there. */
export function foldedPath(path: string): string {
  return path.normalize("NFC").toLowerCase();
}

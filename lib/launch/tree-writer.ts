import { chmodSync, linkSync, mkdirSync, symlinkSync } from "node:fs";
import { posix } from "node:path";
import process from "node:process";
import { checkedPath, checkedTarget, foldedPath } from "../archive/rules.ts";
import { Refused } from "../core/errors.ts";
import { NewFile } from "./new-file.ts";
import { type EntrySink, shownName, type TarEntry, type TarLimits } from "../archive/tar.ts";

type Kind = "folder" | "file" | "link";

/**
 * Writes entries below a folder that was empty, so that what it remembers is what stands there.
 *
 * Every rule about hostile archives is here. An archive that breaks one is refused as a whole: a partial
 * install that looks good is the worst of all. Files belong to whoever unpacks, are never writable by others,
 * and get the time of the install: a reproducible archive has one fixed time, and a web server that makes
 * ETags of time and size must see that a file is new.
 */
export class TreeWriter {
  entries = 0;
  bytes = 0;
  readonly #folder: string;
  readonly #limits: TarLimits;
  /** By exact path. */
  readonly #kinds = new Map<string, Kind>();
  /** Named by an entry of its own, not only as part of another's path. */
  readonly #named = new Set<string>();
  /** By the path as a file system sees it that ignores case and Unicode form. */
  readonly #folded = new Map<string, string>();
  readonly #folderModes = new Map<string, number>();
  readonly #umask = process.umask();
  #open: NewFile | undefined;

  constructor(folder: string, limits: TarLimits) {
    this.#folder = folder;
    this.#limits = limits;
  }

  /**
   * Make what the entry says.
   * @returns what takes a file's bytes.
   * @throws {Refused} when it breaks a rule.
   */
  add(entry: TarEntry): EntrySink | undefined {
    const path = checkedPath(entry.path);
    const refuse = (why: string) => new Refused(`"${shownName(entry.path)}" ${why}`);
    const mode = entry.mode ?? 0o644;
    if (mode & 0o6000) throw refuse("is setuid or setgid");
    if (++this.entries > this.#limits.entries)
      throw new Refused(`it has more than ${this.#limits.entries} entries`);
    if (path === "") {
      if (entry.type !== "Directory") throw refuse("has no name");
      return undefined;
    }
    if (this.#named.has(path)) throw refuse("is there twice");
    this.#named.add(path);
    switch (entry.type) {
      case "Directory":
        this.#makeFolder(path);
        this.#folderModes.set(path, (mode & 0o755) | 0o700);
        return undefined;
      case "File":
      case "OldFile":
      case "ContiguousFile":
        this.#claim(path, "file");
        return this.#writeFile(path, entry, mode & 0o755);
      case "SymbolicLink":
        this.#claim(path, "link");
        symlinkSync(checkedTarget(path, entry.linkpath ?? ""), `${this.#folder}/${path}`);
        return undefined;
      case "Link": {
        const target = checkedPath(entry.linkpath ?? "");
        if (this.#kinds.get(target) !== "file")
          throw refuse(
            `is a hard link to "${shownName(entry.linkpath ?? "")}", which is no file before it in the archive`,
          );
        this.#claim(path, "file");
        linkSync(`${this.#folder}/${target}`, `${this.#folder}/${path}`);
        return undefined;
      }
      default:
        throw refuse(`is of a kind that is not unpacked (${entry.type})`);
    }
  }

  /** Folders get their modes last: one without the right to write must still be filled. */
  finish(): void {
    chmodSync(this.#folder, 0o755);
    for (const [path, mode] of this.#folderModes)
      if (mode !== (0o755 & ~this.#umask)) chmodSync(`${this.#folder}/${path}`, mode);
  }

  close(): void {
    this.#open?.close();
  }

  /** Make sure that the folders above are folders, and that nothing else is called so. */
  #claim(path: string, kind: Kind): void {
    const parent = posix.dirname(path);
    if (parent !== ".") this.#makeFolder(parent);
    if (this.#kinds.has(path)) throw new Refused(`"${shownName(path)}" is there twice`);
    const folded = foldedPath(path);
    const other = this.#folded.get(folded);
    if (other !== undefined)
      throw new Refused(
        `"${shownName(path)}" and "${shownName(other)}" differ only in case or Unicode form`,
      );
    this.#folded.set(folded, path);
    this.#kinds.set(path, kind);
  }

  #makeFolder(path: string): void {
    const kind = this.#kinds.get(path);
    if (kind === "folder") return;
    if (kind !== undefined)
      throw new Refused(`"${shownName(path)}" is used as a folder, but is a ${kind}`);
    this.#claim(path, "folder");
    mkdirSync(`${this.#folder}/${path}`, 0o755);
  }

  #writeFile(path: string, entry: TarEntry, mode: number): EntrySink {
    this.bytes += entry.size;
    if (this.bytes > this.#limits.size)
      throw new Refused(`it unpacks to more than ${this.#limits.size} bytes`);
    const file = new NewFile(`${this.#folder}/${path}`, mode | 0o400, this.#umask);
    this.#open = file;
    return {
      write: (piece) => file.write(piece),
      end() {
        file.close();
        if (file.written !== entry.size) throw new Refused(`"${shownName(entry.path)}" is cut off`);
      },
    };
  }
}

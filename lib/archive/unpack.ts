import { chmodSync, closeSync, fchmodSync, linkSync, mkdirSync, openSync, symlinkSync, writeSync } from "node:fs";
import { posix } from "node:path";
import { checkedPath, checkedTarget, foldedPath } from "./rules.ts";
import { type EntrySink, readTarGz, shownName, type TarEntry, type TarLimits, tarLimits } from "./tar.ts";
import { Failure, messageOf, Refused, systemCode } from "../core/errors.ts";
import { readPieces } from "../files/files.ts";

export interface UnpackOptions {
  limits?: TarLimits;
  /**
   * Asked when a whole archive was unpacked: whether its one top folder is taken off. `folder`: that folder, undefined
   * when there is more than one thing at the top; `hasFile` tells whether a file is in it.
   * @throws {Refused} when that has to be said first.
   */
  strip?: ((folder: string | undefined, hasFile: (path: string) => boolean) => boolean) | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Unpack the archive that is open as `fd` into `folder`, which is empty. The caller removes it when this throws.
 * @param name the archive's, for messages.
 * @returns the folder that holds the release: `folder`, or the one in it that was to be taken off.
 * @throws {Refused} when an entry breaks a rule, with the entry's name; or when it is not a whole tar.gz.
 * @throws {Failure} when the disk is full and the like.
 */
export async function unpack(
  fd: number,
  folder: string,
  name: string,
  { limits = tarLimits, strip = () => false, signal }: UnpackOptions = {},
): Promise<string> {
  const tree = new TreeWriter(folder, limits);
  try {
    await readTarGz(readPieces(fd), (entry) => tree.add(entry), { limits, signal });
    tree.finish();
    const top = tree.onlyFolder();
    const isStripped = strip(top, (path) => tree.hasFile(`${top ?? ""}/${path}`));
    return isStripped && top !== undefined ? tree.stripTo(top) : folder;
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof Refused) throw new Refused(`${name} is not unpacked: ${error.message}`);
    if (systemCode(error) === undefined) throw error;
    throw new Failure(`${name} cannot be unpacked: ${messageOf(error)}`);
  } finally {
    tree.close();
  }
}

type Kind = "folder" | "file" | "link";

/**
 * Writes entries below a folder that was empty, so that what it remembers is all that is there.
 *
 * Every rule about hostile archives is here. An archive that breaks one is refused as a whole: a partial
 * install that looks good is the worst of all. Files belong to whoever unpacks, are never writable by others,
 * and get the time of the install: a reproducible archive has one fixed time, and a web server that makes
 * ETags of time and size must see that a file is new.
 */
class TreeWriter {
  readonly #folder: string;
  readonly #limits: TarLimits;
  /** By exact path. */
  readonly #kinds = new Map<string, Kind>();
  /** Named by an entry of its own, not only as part of another's path. */
  readonly #named = new Set<string>();
  /** By the path as a file system sees it that ignores case and Unicode form. */
  readonly #folded = new Map<string, string>();
  readonly #folderModes = new Map<string, number>();
  /** Symbolic links, with their targets. */
  readonly #links = new Map<string, string>();
  #entries = 0;
  #bytes = 0;
  /** The file that is being written. */
  #fd: number | undefined;

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
    // a folder's setgid bit is about who owns what is made in it; it is not kept
    const isFolder = entry.type === "Directory";
    if (mode & (isFolder ? 0o4000 : 0o6000)) throw refuse("is setuid or setgid");
    this.count();
    if (path === "") {
      if (!isFolder) throw refuse("has no name");
      return undefined;
    }
    if (this.#named.has(path)) throw refuse("is there twice");
    this.#named.add(path);
    switch (entry.type) {
      case "Directory":
        this.makeFolder(path);
        this.#folderModes.set(path, (mode & 0o755) | 0o700);
        return undefined;
      case "File":
      case "OldFile":
      case "ContiguousFile":
        this.claim(path, "file");
        return this.writeFile(path, entry, mode & 0o755);
      case "SymbolicLink": {
        this.claim(path, "link");
        const target = checkedTarget(path, entry.linkpath ?? "");
        symlinkSync(target, `${this.#folder}/${path}`);
        this.#links.set(path, target);
        return undefined;
      }
      case "Link": {
        const target = checkedPath(entry.linkpath ?? "");
        if (this.#kinds.get(target) !== "file")
          throw refuse(
            `is a hard link to "${shownName(entry.linkpath ?? "")}", which is not a file before it in the archive`,
          );
        this.claim(path, "file");
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
    for (const [path, mode] of this.#folderModes) chmodSync(`${this.#folder}/${path}`, mode);
  }

  /** The one folder that everything is in. */
  onlyFolder(): string | undefined {
    const tops = [...this.#kinds.keys()].filter((path) => !path.includes("/"));
    const [top] = tops;
    return tops.length === 1 && top && this.#kinds.get(top) === "folder" ? top : undefined;
  }

  hasFile(path: string): boolean {
    return this.#kinds.get(path) === "file";
  }

  /**
   * Make the one top folder the release's. @returns where it is.
   * @throws {Refused} when a link would lead out of it.
   */
  stripTo(top: string): string {
    for (const [path, target] of this.#links) checkedTarget(path.slice(top.length + 1), target);
    chmodSync(`${this.#folder}/${top}`, 0o755);
    return `${this.#folder}/${top}`;
  }

  /** Close the file that an error left open. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** Make sure that the folders above are folders, and that nothing else is called so. */
  private claim(path: string, kind: Kind): void {
    const parent = posix.dirname(path);
    if (parent !== ".") this.makeFolder(parent);
    if (this.#kinds.has(path)) throw new Refused(`"${shownName(path)}" is there twice`);
    const folded = foldedPath(path);
    const other = this.#folded.get(folded);
    if (other !== undefined)
      throw new Refused(`"${shownName(path)}" and "${shownName(other)}" differ only in case or Unicode form`);
    this.#folded.set(folded, path);
    this.#kinds.set(path, kind);
  }

  private makeFolder(path: string): void {
    const kind = this.#kinds.get(path);
    if (kind === "folder") return;
    if (kind !== undefined) throw new Refused(`"${shownName(path)}" is used as a folder, but is a ${kind}`);
    this.claim(path, "folder");
    if (!this.#named.has(path)) this.count();
    mkdirSync(`${this.#folder}/${path}`, 0o755);
  }

  /** Folders that only the path of another entry names count as entries, too. */
  private count(): void {
    if (++this.#entries > this.#limits.entries) throw new Refused(`it has more than ${this.#limits.entries} entries`);
  }

  private writeFile(path: string, entry: TarEntry, mode: number): EntrySink {
    this.#bytes += entry.size;
    if (this.#bytes > this.#limits.size) throw new Refused(`it unpacks to more than ${this.#limits.size} bytes`);
    const fd = openSync(`${this.#folder}/${path}`, "wx", 0o600);
    this.#fd = fd;
    // as the archive says, whatever the umask is; but its owner must be able to read it
    fchmodSync(fd, mode | 0o400);
    let size = 0;
    return {
      // plain calls: a promise for each of many small files would cost more than the writing
      write(piece) {
        for (let done = 0; done < piece.length; ) done += writeSync(fd, piece, done);
        size += piece.length;
      },
      end: () => {
        this.close();
        if (size !== entry.size) throw new Refused(`"${shownName(entry.path)}" is cut off`);
      },
    };
  }
}

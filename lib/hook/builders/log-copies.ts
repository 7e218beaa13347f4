import { appendFile, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { messageOf } from "../../core/errors.ts";
import { hasEnded } from "../records.ts";
import type { SharedRun } from "./documents.ts";
import type { LogPiece, LogPlace } from "./log-pieces.ts";

/** So many logs of other builders are kept in the state folder. */
const maxCopies = 50;

interface LogSource {
  /** The next piece, from the builder that has the log. @throws when that one does not answer */
  ask: (run: SharedRun, place: LogPlace) => Promise<LogPiece>;
  /** What the bus kept of the log of a run that has ended, packed. */
  kept: (id: string) => Promise<Buffer | undefined>;
}

/** Copies of logs that were written elsewhere, each in a file that grows when it is asked for. */
export class LogCopies {
  readonly #folder: string;
  readonly #source: LogSource;
  /** How far each copy is. */
  readonly #copies = new Map<string, { place: LogPlace; isEnd: boolean; fence: number }>();
  readonly #copying = new Map<string, Promise<void>>();

  constructor(folder: string, source: LogSource) {
    this.#folder = folder;
    this.#source = source;
  }

  path(id: string): string {
    return join(this.#folder, id);
  }

  /** Whether more of a log is known to come. */
  isBehind(id: string): boolean {
    return this.#copies.get(id)?.isEnd === false;
  }

  /** Remove all. */
  async clear(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** Bring a copy up to date; those that ask at the same time share it. What went wrong stands in the copy. */
  async update(run: SharedRun): Promise<void> {
    const { id } = run;
    let copying = this.#copying.get(id);
    if (!copying) {
      copying = this.copy(run)
        .catch((error: unknown) => writeIfNone(this.path(id), `${messageOf(error)}\n`))
        .finally(() => this.#copying.delete(id));
      this.#copying.set(id, copying);
    }
    await copying;
  }

  private async copy(run: SharedRun): Promise<void> {
    const { id } = run;
    let copy = this.#copies.get(id);
    if (copy?.isEnd) return;
    const path = join(this.#folder, id);
    if (!copy) {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      await this.makeRoom();
    }
    const { fence = 0 } = run;
    copy ??= { place: { ino: 0, at: 0, got: 0 }, isEnd: false, fence };
    if (copy.fence !== fence) {
      await appendFile(path, `\n[builder ${run.builder} began it anew]\n`, { mode: 0o600 });
      copy = { ...copy, place: { ...copy.place, ino: 0, at: 0 }, fence };
    }
    for (;;) {
      let piece: LogPiece;
      try {
        piece = await this.#source.ask(run, copy.place);
      } catch (error) {
        const kept = hasEnded(run.state) ? await this.#source.kept(id) : undefined;
        if (!kept) throw error;
        await writeFile(path, gunzipSync(kept), { mode: 0o600 });
        this.#copies.set(id, { ...copy, isEnd: true });
        return;
      }
      const { text, ino, at, isEnd } = piece;
      await appendFile(path, text, { mode: 0o600 });
      const got: number = copy.place.got + Buffer.byteLength(text);
      copy = { ...copy, place: { ino, at, got }, isEnd };
      this.#copies.set(id, copy);
      if (isEnd || text === "") return;
    }
  }

  private async makeRoom(): Promise<void> {
    const names = await readdir(this.#folder);
    for (const name of names.sort().slice(0, Math.max(0, names.length - maxCopies))) {
      if (this.#copying.has(name)) continue;
      this.#copies.delete(name);
      await rm(join(this.#folder, name), { force: true });
    }
  }
}

async function writeIfNone(path: string, text: string): Promise<void> {
  await writeFile(path, text, { flag: "wx", mode: 0o600 }).catch(() => {});
}

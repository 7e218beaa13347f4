import { constants } from "node:fs";
import { appendFile, type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as breathe } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { messageOf, systemCode } from "../core/errors.ts";
import { isRunId, newRunId } from "../core/id.ts";
import { fsyncFolder } from "../files/files.ts";
import { KnownRuns } from "./known-runs.ts";
import type { Change, Plan, Run, RunStore, Source } from "./run-store.ts";

/**
 * A line of STATE/runs.jsonl: runs as they are from now on, or ids of runs that are forgotten. `n` counts the lines of
 * the file, so that a missing one is noticed; `sum` at the end is the CRC-32 of what stands before it.
 */
interface Line {
  readonly n: number;
  readonly runs?: readonly Run[];
  readonly gone?: readonly string[];
  /** What those runs were made of, until they have started; `payload64` where it is not UTF-8. */
  readonly payload?: string | undefined;
  readonly payload64?: string;
}

/** Where a payload's line stands in the file, in bytes. */
interface Place {
  readonly at: number;
  readonly length: number;
}

/** What one write takes along. `lines` is called when that write begins, so that it knows of all before it. */
interface Job {
  readonly lines: () => Omit<Line, "n"> | undefined;
  readonly done: (written: boolean) => void;
  readonly failed: (error: unknown) => void;
}

/** A file that takes the place of another one. */
interface Fresh {
  /** Up to where the old one was copied. */
  from: number;
  length: number;
  lines: number;
  /** Where payloads stand in it, and how many bytes a line of each run has. */
  readonly places: Map<string, Place>;
  readonly sizes: Map<string, number>;
}

/** A write takes no further line when it has so many characters. */
const maxWrite = 32 * 1024 * 1024;
/** The file is rewritten when it has so many bytes, and is more than twice what a fresh one would have. */
const minRewrite = 64 * 1024 * 1024;
/** What is written is on disk when its write ends. */
const appending = constants.O_RDWR | constants.O_CREAT | constants.O_APPEND | constants.O_DSYNC;

/** The runs of a server that is alone: STATE/runs.jsonl, of which the last line of a run counts. */
export class FileStore extends KnownRuns implements RunStore {
  readonly #path: string;
  readonly #warn: (text: string) => void;
  /** The payloads that stand in the file, by run. */
  readonly #payloads = new Map<string, Place>();
  /** How many bytes a fresh line of each run has. */
  readonly #sizes = new Map<string, number>();
  #fresh = 0;
  #file: FileHandle | undefined;
  /** Up to where the file is good, and its lines. */
  #length = 0;
  #lines = 0;
  #mustRewrite = false;
  readonly #queue: Job[] = [];
  /** What a write that is on its way makes of runs. */
  readonly #next = new Map<string, Run>();
  #writing: Promise<void> | undefined;
  /** A fresh file is being written; `#finish` puts it in place, between two writes. */
  #rewriting: Promise<void> | undefined;
  #finish: (() => Promise<void>) | undefined;
  #closing = false;

  private constructor(state: string, warn: (text: string) => void) {
    super();
    this.#path = join(state, "runs.jsonl");
    this.#warn = warn;
  }

  /** Read what is there. It writes nothing: a full disk keeps no server from starting. */
  static async open(state: string, warn: (text: string) => void): Promise<FileStore> {
    const store = new FileStore(state, warn);
    await store.replay();
    return store;
  }

  async accept(source: Source, changes: readonly Change[], payload: Buffer): Promise<Run[]> {
    const accepted = new Date().toISOString();
    const runs = changes.map((change): Run => {
      const id = newRunId(Date.parse(accepted));
      return { id, ...source, ...change, accepted, state: "waiting", attempt: 0 };
    });
    await this.write(() => ({ runs, ...encodePayload(payload) }));
    return runs;
  }

  async change(id: string, plan: Plan): Promise<Run | undefined> {
    let next: Run | undefined;
    const isWritten = await this.write(() => {
      const now = this.#next.get(id) ?? this.get(id);
      next = now && plan(now);
      return next && { runs: [next] };
    });
    return isWritten ? next : undefined;
  }

  async remove(ids: readonly string[]): Promise<void> {
    await this.write(() => ({ gone: ids }));
  }

  async payload(id: string): Promise<Buffer | undefined> {
    const file = await this.file();
    // a rewrite replaces the file and all places in one tick
    const place = this.#payloads.get(id);
    return place && decodePayload(await this.lineAt(file, place));
  }

  async close(): Promise<void> {
    this.#closing = true;
    while (this.#writing || this.#rewriting) await (this.#writing ?? this.#rewriting);
    await this.#file?.close();
    this.#file = undefined;
  }

  /** Resolves when it is on disk, with whether there was anything to write. */
  private write(lines: Job["lines"]): Promise<boolean> {
    return new Promise((done, failed) => {
      this.#queue.push({ lines, done, failed });
      this.#writing ??= this.work().finally(() => (this.#writing = undefined));
    });
  }

  /** One write after the other; each takes all that came meanwhile. */
  private async work(): Promise<void> {
    // what comes in the same tick goes along
    await breathe();
    while (this.#queue.length > 0 || this.#finish) {
      const finish = this.#finish;
      this.#finish = undefined;
      await finish?.();
      this.rewriteIfDue();
      const [taken, parts]: [[Job, Line | undefined, Place][], string[]] = [[], []];
      let size = 0;
      for (let job = this.#queue[0]; job && size < maxWrite; job = this.#queue[0]) {
        this.#queue.shift();
        const line = planned(job, this.#lines + parts.length + 1);
        if (line === null) continue;
        const text = line ? encode(line) : "";
        const length = Buffer.byteLength(text);
        taken.push([job, line, { at: this.#length + size, length }]);
        if (line) parts.push(text);
        for (const run of line?.runs ?? []) this.#next.set(run.id, run);
        size += length;
      }
      try {
        if (size > 0) await this.append(Buffer.from(parts.join("")));
        this.#lines += parts.length;
        for (const [, line, place] of taken) if (line) this.take(line, place);
        for (const [job, line] of taken) job.done(line !== undefined);
      } catch (error) {
        for (const [job] of taken) job.failed(error);
      }
      this.#next.clear();
    }
  }

  private async append(data: Buffer): Promise<void> {
    const file = await this.file();
    try {
      for (let at = 0; at < data.length; ) at += (await file.write(data, at)).bytesWritten;
      this.#length += data.length;
    } catch (error) {
      // nothing of it may remain, or a run that was refused would run after the next start: opening it cuts it off
      this.#file = undefined;
      await file.close();
      await this.file().catch(() => {});
      throw error;
    }
  }

  private async file(): Promise<FileHandle> {
    if (this.#file) return this.#file;
    const file = await open(this.#path, appending, 0o600);
    try {
      // the end of a line that a crash or a full disk cut off
      if ((await file.stat()).size > this.#length) await file.truncate(this.#length);
      if (this.#length === 0) await fsyncFolder(join(this.#path, ".."));
    } catch (error) {
      await file.close();
      throw error;
    }
    if (this.#file) await file.close();
    else this.#file = file;
    return this.#file;
  }

  private async lineAt(file: FileHandle, { at, length }: Place): Promise<Line> {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, at);
    const line = decode(buffer.toString("utf8", 0, bytesRead - 1));
    if (line) return line;
    throw new Error(`${this.#path}: the line at byte ${at} is damaged; push again`);
  }

  /** A line is on disk. */
  private take({ runs = [], gone = [], payload, payload64 }: Line, place: Place): void {
    const hasPayload = payload !== undefined || payload64 !== undefined;
    for (const run of runs) {
      if (hasPayload) this.#payloads.set(run.id, place);
      // a run that has started has it in its folder, and one that gave way is not run again
      else if (run.state === "running" || run.state === "superseded") this.#payloads.delete(run.id);
      // a line without the payload that is still kept says nothing of the size of both
      if (hasPayload || !this.#payloads.has(run.id)) this.count(run.id, place.length);
      this.set(run);
    }
    for (const id of gone) {
      this.#payloads.delete(id);
      this.count(id, 0);
      this.delete(id);
    }
  }

  private count(id: string, size: number): void {
    this.#fresh += size - (this.#sizes.get(id) ?? 0);
    if (size > 0) this.#sizes.set(id, size);
    else this.#sizes.delete(id);
  }

  /** Begin to write a fresh file beside, when most of this one is old. Nobody waits for it. */
  private rewriteIfDue(): void {
    const isDue = this.#length > minRewrite && this.#length > 2 * this.#fresh;
    if (this.#rewriting || this.#closing || (!isDue && !this.#mustRewrite)) return;
    this.#mustRewrite = false;
    // what is written from now on follows in the old file, and is copied at the end
    const fresh: Fresh = { from: this.#length, length: 0, lines: 0, places: new Map(), sizes: new Map() };
    this.#rewriting = this.rewrite([...this.runs()], fresh)
      .catch(async (error: unknown) => {
        await rm(`${this.#path}.new`, { force: true }).catch(() => {});
        if (this.#closing) return;
        this.#warn(`${this.#path} cannot be rewritten: ${messageOf(error)}; tried again when it has grown`);
        this.#fresh = this.#length;
      })
      .finally(() => (this.#rewriting = undefined));
  }

  private async rewrite(runs: readonly Run[], fresh: Fresh): Promise<void> {
    const path = `${this.#path}.new`;
    await rm(path, { force: true });
    const [old, file] = [await open(this.#path), await open(path, appending & ~constants.O_DSYNC, 0o600)];
    try {
      for (let at = 0; at < runs.length; at += 200) {
        if (this.#closing && at > 0) throw new Error("the server ends");
        const lines = runs.slice(at, at + 200).map(async (run) => {
          const place = this.#payloads.get(run.id);
          // what came later stands in the old file beyond
          const { payload, payload64 } =
            place && place.at < fresh.from ? await this.lineAt(old, place) : ({} as Partial<Line>);
          return { runs: [run], ...(payload64 === undefined ? { payload } : { payload64 }) };
        });
        await addTo(file, fresh, await Promise.all(lines));
      }
      await file.sync();
      // what came meanwhile; the last of it while nothing else is written
      while (this.#length - fresh.from > 1024 * 1024) await this.copyRest(old, file, fresh);
      await file.sync();
      await new Promise<void>((done, failed) => {
        this.#finish = async () => {
          try {
            await this.finish(old, file, fresh);
            done();
          } catch (error) {
            failed(error);
          }
        };
        this.#writing ??= this.work().finally(() => (this.#writing = undefined));
      });
    } finally {
      await Promise.all([old.close(), file.close()]);
    }
  }

  private async copyRest(old: FileHandle, file: FileHandle, fresh: Fresh): Promise<void> {
    const data = Buffer.alloc(this.#length - fresh.from);
    const { bytesRead } = await old.read(data, 0, data.length, fresh.from);
    if (bytesRead < data.length) throw new Error("it is shorter than it was");
    fresh.from += data.length;
    const lines = data.toString().split("\n").slice(0, -1).map(decode);
    await addTo(
      file,
      fresh,
      lines.filter((line) => line !== undefined),
    );
  }

  /** Put the fresh file in the old one's place. Nothing else is written meanwhile. */
  private async finish(old: FileHandle, file: FileHandle, fresh: Fresh): Promise<void> {
    await this.copyRest(old, file, fresh);
    await file.sync();
    await rename(`${this.#path}.new`, this.#path);
    const former = this.#file;
    [this.#file, this.#length, this.#lines] = [undefined, fresh.length, fresh.lines];
    for (const id of this.#payloads.keys()) this.#payloads.set(id, fresh.places.get(id) ?? { at: 0, length: 0 });
    this.#fresh = 0;
    this.#sizes.clear();
    for (const [id, size] of fresh.sizes) if (this.get(id)) this.count(id, size);
    await former?.close();
    await fsyncFolder(join(this.#path, ".."));
  }

  private async replay(): Promise<void> {
    const size = await stat(this.#path).then(
      (found) => found.size,
      (error: unknown) => {
        if (systemCode(error) !== "ENOENT") throw error;
        return 0;
      },
    );
    if (size === 0) return;
    const bad: { at: number; data: Buffer; why: string }[] = [];
    const file = await open(this.#path);
    try {
      let [rest, at, counted]: [Buffer, number, number] = [Buffer.alloc(0), 0, 0];
      for (let read = 0; read < size; ) {
        const piece = Buffer.allocUnsafe(Math.min(4 * 1024 * 1024, size - read));
        const { bytesRead } = await file.read(piece, 0, piece.length, read);
        if (bytesRead === 0) break;
        read += bytesRead;
        rest = rest.length > 0 ? Buffer.concat([rest, piece.subarray(0, bytesRead)]) : piece.subarray(0, bytesRead);
        let start = 0;
        for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10, start)) {
          const line = decode(rest.toString("utf8", start, end));
          const place = { at: at + start, length: end + 1 - start };
          counted += 1;
          if (!line) bad.push({ at: place.at, data: rest.subarray(start, end + 1), why: "is damaged" });
          else {
            if (line.n !== counted && bad.at(-1)?.why !== "is damaged")
              bad.push({
                at: place.at,
                data: nothing,
                why: `is line ${line.n} instead of ${counted}: lines before it are missing or twice`,
              });
            counted = line.n;
            this.take(line, place);
          }
          start = end + 1;
        }
        at += start;
        rest = rest.subarray(start);
      }
      this.#length = at;
      this.#lines = counted;
      if (rest.length > 0) bad.push({ at, data: rest, why: "has no end, as after a crash: it was not accepted" });
    } finally {
      await file.close();
    }
    if (bad.length > 0) await this.setAside(bad);
  }

  private async setAside(bad: readonly { at: number; data: Buffer; why: string }[]): Promise<void> {
    const aside = `${this.#path}.damaged`;
    for (const { at, why } of bad.slice(0, 10)) this.#warn(`${this.#path}: the line at byte ${at} ${why}`);
    if (bad.length > 10) this.#warn(`${this.#path}: ${bad.length - 10} more lines are damaged`);
    const data = Buffer.concat(bad.flatMap((each) => [each.data, Buffer.from("\n")]));
    await appendFile(aside, data, { mode: 0o600 }).then(
      () => {
        this.#mustRewrite = bad.some(({ why }) => !why.startsWith("has no end"));
        this.#warn(`what does not read is kept in ${aside}; all else is as it was`);
      },
      (error: unknown) => this.#warn(`${aside} cannot be written: ${messageOf(error)}`),
    );
  }
}

const nothing = Buffer.alloc(0);

/** Append lines to a fresh file. */
async function addTo(file: FileHandle, fresh: Fresh, lines: readonly Omit<Line, "n">[]): Promise<void> {
  let text = "";
  for (const line of lines) {
    fresh.lines += 1;
    const encoded = encode({ ...line, n: fresh.lines });
    const place = { at: fresh.length, length: Buffer.byteLength(encoded) };
    const hasPayload = line.payload !== undefined || line.payload64 !== undefined;
    for (const { id } of line.runs ?? []) {
      if (hasPayload) fresh.places.set(id, place);
      if (hasPayload || !fresh.places.has(id)) fresh.sizes.set(id, place.length);
    }
    fresh.length += place.length;
    text += encoded;
  }
  await file.appendFile(text);
}

/** The line of a job; null when its plan threw, which it was told. */
function planned(job: Job, n: number): Line | undefined | null {
  try {
    const line = job.lines();
    return line && { n, ...line };
  } catch (error) {
    job.failed(error);
    return null;
  }
}

/** A line of the file, with its end. */
export function encode(line: Line): string {
  const text = JSON.stringify(line).slice(0, -1);
  return `${text},"sum":"${sumOf(text)}"}\n`;
}

/** Undefined for what was not written like that. */
function decode(text: string): Line | undefined {
  const end = text.length - 18;
  if (text.slice(end) !== `,"sum":"${sumOf(text.slice(0, Math.max(0, end)))}"}`) return undefined;
  const line = JSON.parse(`${text.slice(0, end)}}`) as Line;
  return (line.runs ?? []).every(({ id }) => isRunId(id)) ? line : undefined;
}

function sumOf(text: string): string {
  return crc32(text).toString(16).padStart(8, "0");
}

function encodePayload(payload: Buffer): Pick<Line, "payload" | "payload64"> {
  const text = payload.toString();
  return Buffer.byteLength(text) === payload.length && Buffer.from(text).equals(payload)
    ? { payload: text }
    : { payload64: payload.toString("base64") };
}

function decodePayload({ payload, payload64 }: Line): Buffer | undefined {
  if (payload64 !== undefined) return Buffer.from(payload64, "base64");
  return payload === undefined ? undefined : Buffer.from(payload);
}

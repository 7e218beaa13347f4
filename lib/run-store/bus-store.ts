import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { gunzip as unpack, gzip as pack, type ZlibOptions } from "node:zlib";
import { nameOnBus } from "../bus/address.ts";
import type { Bucket, Objects } from "../bus/bus.ts";
import { Failure, messageOf } from "../core/errors.ts";
import { newRunId } from "../core/id.ts";
import { HttpError } from "../http/server.ts";
import { KnownRuns } from "./known-runs.ts";
import { type Change, hasEnded, type Plan, type Run, type RunStore, type Source } from "./run-store.ts";

const [gzip, gunzip] = [promisify(pack), promisify<Buffer, ZlibOptions, Buffer>(unpack)];

/** A run on the bus, `run.REPO.KEY`. `n` grows with each change: what is told late is known to be old. */
interface Document {
  readonly n: number;
  readonly run: Run;
}

/** Where the runs of several builders are. */
export interface SharedBuckets {
  readonly runs: Bucket;
  /** What runs were made of, under the same keys. */
  readonly payloads: Objects;
}

/** A payload beyond that was not written by a builder: no forge sends so much. */
const maxPayload = 64 * 1024 * 1024;
/** A run with more than that of stages is kept without them: a value on the bus is 1 MB at most. */
const maxRun = 256 * 1024;
const day = 86_400_000;

/** The runs of several builders: a document a run in a bucket of the bus, changed by compare-and-set. */
export class BusStore extends KnownRuns implements RunStore {
  readonly #warn: (text: string) => void;
  /** Each run's document, and the number of its last change that we know of. */
  readonly #documents = new Map<string, { readonly key: string; readonly n: number }>();
  readonly #ids = new Map<string, string>();
  /** The keys whose values do not read: their runs are left alone, and named. */
  readonly unread = new Set<string>();
  #buckets: SharedBuckets | undefined;

  constructor(warn: (text: string) => void) {
    super();
    this.#warn = warn;
  }

  /** The bus was reached; resolves when all runs that are there are known. */
  async join(buckets: SharedBuckets): Promise<void> {
    let first: [string, Document][] | undefined = [];
    await buckets.runs.follow((key, text) => {
      if (!key.startsWith("run.")) return;
      const document = text === undefined ? undefined : this.read(key, text);
      if (document && first) first.push([key, document]);
      else if (document) this.know(key, document);
      else if (text === undefined) this.forget(key);
    });
    first.sort(([, a], [, b]) => (a.run.accepted < b.run.accepted ? -1 : 1));
    for (const each of first) this.know(...each);
    first = undefined;
    this.#buckets = buckets;
  }

  private read(key: string, text: string): Document | undefined {
    try {
      const document = JSON.parse(text) as Document;
      if (typeof document.run?.id !== "string" || typeof document.run.repo !== "string" || !Number(document.n))
        throw new Error("it is no run");
      this.unread.delete(key);
      return document;
    } catch (error) {
      if (!this.unread.has(key)) this.#warn(`${key} in bucket builds of the bus does not read: ${messageOf(error)}`);
      this.unread.add(key);
      return undefined;
    }
  }

  private know(key: string, { n, run }: Document): void {
    if ((this.#documents.get(run.id)?.n ?? 0) >= n) return;
    this.#documents.set(run.id, { key, n });
    this.#ids.set(key, run.id);
    this.set(run);
  }

  private forget(key: string): void {
    const id = this.#ids.get(key);
    const run = id === undefined ? undefined : this.get(id);
    this.unread.delete(key);
    if (!run) return;
    if (!hasEnded(run)) this.#warn(`the bus has lost run ${run.id} of ${run.repo}; push again`);
    this.#ids.delete(key);
    this.#documents.delete(run.id);
    this.delete(run.id);
  }

  private buckets(): SharedBuckets {
    if (!this.#buckets) throw new Failure("the bus was not reached yet");
    return this.#buckets;
  }

  /** A delivery that comes again, to whichever builder, is the run that it was: its key is taken. */
  async accept(source: Source, changes: readonly Change[], payload: Buffer): Promise<Run[]> {
    const accepted = new Date().toISOString();
    try {
      const packed = await gzip(payload);
      const runs: Run[] = [];
      for (const change of changes) {
        const id = newRunId(Date.parse(accepted));
        runs.push(await this.create({ id, ...source, ...change, accepted, state: "waiting", attempt: 0 }, packed));
      }
      return runs;
    } catch (error) {
      if (error instanceof Failure)
        throw new HttpError(503, `not accepted: ${messageOf(error)}`, { "retry-after": "10" });
      throw error;
    }
  }

  /** Take over a run that waits in another store; one that came over before is left as it is. */
  async adopt(run: Run, payload: Buffer): Promise<void> {
    await this.create(run, await gzip(payload));
  }

  private async create(run: Run, packed: Buffer): Promise<Run> {
    const { runs, payloads } = this.buckets();
    for (let time = 0; ; time += 1) {
      const key = keyOf(run, time);
      const there = await runs.get(key);
      const known = there && this.read(key, there.text);
      if (there && !known) throw new Failure(`${key} in bucket builds of the bus does not read`);
      if (known && !isOver(known.run)) return known.run;
      if (known) continue;
      await payloads.put(key, packed);
      const document: Document = { n: 1, run };
      const isOurs = (await runs.put(key, JSON.stringify(document), 0)) !== undefined;
      if (isOurs) this.know(key, document);
      if (isOurs) return run;
      time -= 1;
    }
  }

  async change(id: string, plan: Plan): Promise<Run | undefined> {
    const { runs } = this.buckets();
    const key = this.#documents.get(id)?.key;
    for (;;) {
      const entry = key === undefined ? undefined : await runs.get(key);
      const document = entry && key !== undefined ? this.read(key, entry.text) : undefined;
      const next = document && plan(document.run);
      if (key === undefined || !entry || !next) return undefined;
      const changed: Document = { n: document.n + 1, run: next };
      const text = JSON.stringify(changed);
      const short = text.length > maxRun ? JSON.stringify({ ...changed, run: { ...next, stages: undefined } }) : text;
      // undefined: somebody else was faster; the plan is asked again, for what it is now
      if ((await runs.put(key, short, entry.revision)) === undefined) continue;
      this.know(key, changed);
      return next;
    }
  }

  async remove(ids: readonly string[]): Promise<void> {
    const { runs, payloads } = this.buckets();
    for (const id of ids) {
      const key = this.#documents.get(id)?.key;
      const run = this.get(id);
      if (key === undefined || !run || !hasEnded(run)) continue;
      await runs.remove(key);
      await payloads.remove(key).catch(() => {});
      this.forget(key);
    }
    // a builder was killed between its payload and its run
    for (const key of await payloads.names(Date.now() - day))
      if (!this.#ids.has(key) && !this.unread.has(key)) await payloads.remove(key);
  }

  async payload(id: string): Promise<Buffer | undefined> {
    const key = this.#documents.get(id)?.key;
    const packed = key === undefined ? undefined : await this.buckets().payloads.get(key);
    return packed && (await gunzip(packed, { maxOutputLength: maxPayload }));
  }

  async close(): Promise<void> {}
}

/** Whether the same delivery, or the same commit that polling found, runs once more. */
function isOver(run: Run): boolean {
  return run.state === "failed" || run.state === "cancelled" || (run.forge === "poll" && hasEnded(run));
}

/** Where a run's document stands: by what it was made of, so that the same delivery finds the same one. */
function keyOf({ id, repo, ref, kind, sha, forge, delivery }: Run, time: number): string {
  const of = delivery ?? (forge === "poll" ? `poll ${sha}` : id);
  const hash = createHash("sha256").update(JSON.stringify([repo, ref, kind, of, time]));
  return `run.${nameOnBus(repo)}.${hash.digest("hex").slice(0, 20)}`;
}

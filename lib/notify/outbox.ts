import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cleanLine } from "../core/clean.ts";
import { messageOf } from "../core/errors.ts";
import { Mutex } from "../core/mutex.ts";
import { formatDuration } from "../core/units.ts";
import { readIfThere, removeStaleTemporaries, writeAtomic } from "../files/files.ts";
import { causeOf, isWanted, type Notice, prepare, type Standing } from "./notice.ts";
import { oldestOfMost, Subjects } from "./subjects.ts";
import { NotSent, type OutboxTarget } from "./target.ts";

/** Something that a target is to be told. */
export interface Item {
  /** A newer message under the same key takes the place of one that still waits. */
  readonly key: string;
  /** What it is about, for the log. */
  readonly about: string;
  /** Whose it is: where too much waits, the one with most of it loses its oldest. */
  readonly repo: string;
  /** What waits of one cause is sent together; undefined: it goes alone. */
  readonly cause?: string;
  readonly message: object;
}

export interface OutboxOptions {
  /** Where messages are kept until they are sent; this process alone works in it. */
  readonly folder: string;
  readonly targets: readonly OutboxTarget[];
  readonly mask: (text: string) => string;
  /** Gets a line for what could not be sent. */
  readonly log: (text: string) => void;
  /** Milliseconds before the first repetition; each further one waits twice as long. Default: 1 s. */
  readonly backoff?: number;
  /** Milliseconds after which a message that a target does not take is given up. Default: 24 h. */
  readonly patience?: number;
  /** Messages that are kept for one target at most. Default: 1000. */
  readonly maxWaiting?: number;
}

/** A message that waits. The order is that of its number, all times are of `performance.now()`: no clock counts. */
interface Waiting extends Item {
  readonly target: string;
  readonly number: number;
  readonly since: number;
  tries: number;
  notBefore: number;
}

interface Lane {
  target: OutboxTarget;
  notBefore: number;
  /** What is being sent, by its key. */
  readonly sending: Map<string, Promise<boolean>>;
  /** What the log was told since it last took a message. */
  readonly said: Set<string>;
}

/** The longest wait between two tries, and the longest that a target may ask for; milliseconds. */
const [longestWait, longestAsked] = [5 * 60_000, 3_600_000];
/** A message waits at most so many times `group` for others of its cause. */
const maxGroups = 6;

/**
 * What is to be told to somebody, on disk until it was: a file a message and target in FOLDER/outbox. What a target
 * does not take is tried again, with growing waits, for a day. Whoever tells never waits for a target.
 */
export class Outbox {
  readonly #options: OutboxOptions;
  readonly #folder: string;
  readonly #subjects: Subjects;
  readonly #lanes = new Map<string, Lane>();
  readonly #abort = new AbortController();
  /** What a failure means depends on the one before, and the newest message of a key comes last. */
  readonly #writes = new Mutex();
  /** All that waits, in order. */
  #waiting: Waiting[] = [];
  #number = 0;
  #started = false;
  #timer: NodeJS.Timeout | undefined;

  private constructor(options: OutboxOptions) {
    this.#options = options;
    this.#folder = join(options.folder, "outbox");
    this.#subjects = new Subjects(options.folder);
  }

  /** Open a folder, with what a former process left there. Nothing is sent before `start` or `flush`. */
  static async open(options: OutboxOptions): Promise<Outbox> {
    const outbox = new Outbox(options);
    await outbox.read();
    await outbox.setTargets(options.targets);
    return outbox;
  }

  /** These targets from now on: what waits is tried at once, and dropped where its target is gone. */
  async setTargets(targets: readonly OutboxTarget[]): Promise<void> {
    await this.#writes.run(async () => {
      const ids = targets.map(({ id }) => id);
      for (const id of this.#lanes.keys()) if (!ids.includes(id)) this.#lanes.delete(id);
      for (const target of targets) {
        const lane = this.#lanes.get(target.id) ?? { target, notBefore: 0, sending: new Map(), said: new Set() };
        this.#lanes.set(target.id, Object.assign(lane, { target, notBefore: 0 }));
      }
      for (const each of this.#waiting) each.notBefore = 0;
      const gone = this.#waiting.filter(({ target }) => !this.#lanes.has(target));
      for (const { about } of gone) this.say(`the message about ${about} is dropped: its target is gone`);
      await this.done(gone);
      this.schedule();
    });
  }

  /**
   * Tell people. When this resolves it is on disk, and sent whatever becomes of this process; told again under the
   * same id it changes nothing.
   * @returns what it means for its subject.
   */
  async tell(notice: Notice): Promise<Standing> {
    return await this.#writes.run(async () => {
      const { standing, isKnown } = await this.#subjects.judge(notice);
      if (isKnown) return standing;
      const message = prepare(notice, standing, this.#options.mask);
      const { id: key, subject: about, repo = about } = message;
      for (const { target } of this.#lanes.values())
        if (target.when && isWanted(message, target.when))
          await this.add(target, { key, about, repo, cause: causeOf(message), message }, true);
      await this.#subjects.remember(notice, standing);
      return standing;
    });
  }

  /** Tell one target; it is on disk when this resolves, unless `keep` is false: then it ends with this process. */
  async put(id: string, item: Item, { keep = true } = {}): Promise<void> {
    await this.#writes.run(async () => {
      const target = this.#lanes.get(id)?.target;
      if (target) await this.add(target, item, keep);
    });
  }

  private async add({ id: target, name }: OutboxTarget, item: Item, keep: boolean): Promise<void> {
    const number = ++this.#number;
    const kept = JSON.stringify({ target, number, queued: new Date(), ...item }, null, 2);
    if (keep) await writeAtomic(this.path(number), `${kept}\n`, { mode: 0o600 });
    await this.queue({ ...item, target, number, since: performance.now(), tries: 0, notBefore: 0 });
    const { maxWaiting = 1000 } = this.#options;
    const all = this.#waiting.filter((each) => each.target === target);
    if (all.length > maxWaiting) {
      const dropped = oldestOfMost(all, ({ repo }) => repo);
      const why = `${maxWaiting} messages wait for it; the oldest about ${dropped.repo} are dropped`;
      this.say(`${name}: ${why}`, this.#lanes.get(target), why);
      await this.done([dropped]);
    }
    this.schedule();
  }

  private async queue(waiting: Waiting): Promise<void> {
    const { target, key } = waiting;
    const former = this.#waiting.filter((each) => each.target === target && each.key === key);
    for (const { tries, notBefore } of former) Object.assign(waiting, { tries, notBefore });
    this.#waiting.push(waiting);
    await this.done(former);
  }

  /** How many messages wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Send from now on, out of the way. */
  start(): void {
    this.#started = true;
    this.schedule();
  }

  /** Try once to send all that waits, at once and for at most `limit` milliseconds. */
  async flush(limit: number): Promise<void> {
    const all = [...this.#lanes.values()].map(async (lane) => {
      while (!this.#abort.signal.aborted) {
        const head = this.#waiting.find(({ target }) => target === lane.target.id);
        if (!head || !(await (lane.sending.get(head.key) ?? this.send(lane, head)))) return;
      }
    });
    await Promise.race([Promise.all(all), sleep(limit, undefined, { ref: false })]);
  }

  /** Stop sending. What was not sent stays on disk. */
  async close(): Promise<void> {
    this.#abort.abort();
    clearTimeout(this.#timer);
    await Promise.all([...this.#lanes.values()].flatMap(({ sending }) => [...sending.values()]));
    await this.#writes.idle();
  }

  /** Send what may go now, and look again when the next one may. */
  private schedule(): void {
    clearTimeout(this.#timer);
    if (!this.#started || this.#abort.signal.aborted) return;
    let next = Number.POSITIVE_INFINITY;
    const begun = new Set<Lane>();
    for (const each of this.#waiting) {
      const lane = this.#lanes.get(each.target);
      const { atOnce = 1 } = lane?.target ?? {};
      if (!lane || lane.sending.size >= atOnce || lane.sending.has(each.key)) continue;
      // where the order of all counts, the first one alone may go
      if (lane.target.atOnce === undefined && begun.has(lane)) continue;
      begun.add(lane);
      const { group = 0 } = lane.target;
      // when no more of its cause came for a while, yet not ever later
      const quiet = group === 0 ? 0 : (this.groupOf(each).at(-1)?.since ?? 0) + group;
      const due = Math.max(Math.min(quiet, each.since + group * maxGroups), each.notBefore, lane.notBefore);
      if (due <= performance.now()) void this.send(lane, each);
      else next = Math.min(next, due);
    }
    if (next === Number.POSITIVE_INFINITY) return;
    this.#timer = setTimeout(() => this.schedule(), Math.max(1, next - performance.now()));
  }

  /** What goes out with a message. */
  private groupOf(head: Waiting): Waiting[] {
    if (head.cause === undefined) return [head];
    return this.#waiting.filter(({ target, cause }) => target === head.target && cause === head.cause);
  }

  /** Send a message with those that go with it. @returns whether it is over with. */
  private send(lane: Lane, head: Waiting): Promise<boolean> {
    const group = this.groupOf(head);
    const sent = this.sendGroup(lane, group).finally(() => {
      for (const { key } of group) lane.sending.delete(key);
      lane.notBefore = Math.max(lane.notBefore, performance.now() + (lane.target.pace ?? 0));
      this.schedule();
    });
    for (const { key } of group) lane.sending.set(key, sent);
    return sent;
  }

  private async sendGroup(lane: Lane, group: readonly Waiting[]): Promise<boolean> {
    const { target, said } = lane;
    const messages = group.map(({ message }) => message);
    const inTime = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(target.limit ?? 90_000)]);
    try {
      await target.send(messages, inTime);
    } catch (error) {
      return this.#abort.signal.aborted ? false : await this.failed(lane, group, error);
    }
    if (said.size > 0) this.say(`${target.name}: takes messages again`);
    said.clear();
    await this.done(group);
    return true;
  }

  private async failed(lane: Lane, group: readonly Waiting[], error: unknown): Promise<boolean> {
    const { backoff = 1000, patience = 86_400_000, mask } = this.#options;
    const { final = false, retryAfter = 0, keyAfter = 0 } = error instanceof NotSent ? error.advice : {};
    const { id, name, atOnce } = lane.target;
    const why = cleanLine(mask(messageOf(error)));
    const say = (them: readonly Waiting[], then: string, once?: string) => {
      const more = them.length > 1 ? ` and ${them.length - 1} more` : "";
      this.say(`${name}: not told of ${them[0]?.about}${more}, ${then}: ${why}`, lane, once);
    };
    const now = performance.now();
    // asked after a try only: the time may be of a clock that was wrong
    const over = final ? group : this.#waiting.filter(({ target, since }) => target === id && now - since >= patience);
    if (over.length > 0) say(over, final ? "and not tried again" : "given up");
    await this.done(over);
    const { tries = 0, since = now } = group[0] ?? {};
    const asked = Math.min(Math.max(retryAfter, keyAfter), longestAsked);
    const grown = final ? 0 : Math.min(backoff * 2 ** tries, longestWait);
    const wait = Math.max(1, Math.min(Math.max(grown, asked), since + patience - now));
    const keys = group.map(({ key }) => key);
    for (const each of this.#waiting)
      if (each.target === id && keys.includes(each.key))
        Object.assign(each, { tries: tries + 1, notBefore: now + wait });
    if (retryAfter > 0 || atOnce === undefined) lane.notBefore = Math.max(lane.notBefore, now + wait);
    if (over.length === 0) say(group, `tried again in ${formatDuration(wait)}`, why);
    return final;
  }

  /** What is no longer to be told. */
  private async done(them: readonly Waiting[]): Promise<void> {
    if (them.length === 0) return;
    this.#waiting = this.#waiting.filter((each) => !them.includes(each));
    for (const { number } of them)
      await rm(this.path(number), { force: true }).catch((error: unknown) => this.say(messageOf(error)));
  }

  private path(number: number): string {
    return join(this.#folder, `${String(number).padStart(8, "0")}.json`);
  }

  private async read(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await removeStaleTemporaries(this.#folder);
    const names = (await readdir(this.#folder)).filter((name) => /^[^.].*\.json$/.test(name)).sort();
    for (const name of names) {
      const path = join(this.#folder, name);
      const text = await readIfThere(path);
      // another process may have sent it meanwhile
      if (text === undefined) continue;
      const waiting = parse(text);
      if (waiting?.number !== Number.parseInt(name, 10)) this.say(`${path}: is not a message; left aside`);
      else {
        this.#number = Math.max(this.#number, waiting.number);
        await this.queue(waiting);
      }
    }
  }

  private say(text: string, lane?: Lane, once?: string): void {
    if (once !== undefined && lane?.said.has(once)) return;
    if (once !== undefined) lane?.said.add(once);
    this.#options.log(`notify: ${text}`);
  }
}

function parse(text: string): Waiting | undefined {
  try {
    const { queued, ...kept } = JSON.parse(text);
    const age = Date.now() - Date.parse(queued);
    const isWhole = [kept.target, kept.key, kept.about, kept.repo].every((each) => typeof each === "string");
    if (Number.isNaN(age) || !isWhole || !kept.message) return undefined;
    return { ...kept, since: performance.now() - Math.max(0, age), tries: 0, notBefore: 0 };
  } catch {
    return undefined;
  }
}

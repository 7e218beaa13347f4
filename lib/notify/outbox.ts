import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cleanLine } from "../core/clean.ts";
import { messageOf, systemCode } from "../core/errors.ts";
import type { Mask } from "../core/mask.ts";
import { formatDuration } from "../core/units.ts";
import { removeStaleTemporaries, writeAtomic } from "../files/files.ts";
import { composeMessage } from "./message.ts";
import { causeOf, isWanted, type Notice, oldestOfMost, prepare, type Standing, type Told } from "./notice.ts";
import { Subjects } from "./subjects.ts";
import { NotSent, type Target } from "./target.ts";

/** Where messages of one kind go: to people, to a forge as commit statuses, to a repo's commands. */
export interface OutboxTarget<Message extends object = object> {
  /** The same as long as it leads to the same place: by it what waits finds its target after a restart. */
  readonly id: string;
  /** For the log: `notify: email to ops@example.com`. */
  readonly name: string;
  /** Send what goes together, in its order. @throws {NotSent} */
  send(messages: readonly Message[], signal: AbortSignal): Promise<void>;
  /** Messages of one cause that come within `group` milliseconds of each other are sent together; else each alone. */
  causeOf?(message: Message): string;
  readonly group?: number;
  /** So many keys at once, in order within each. Default: one message after the other. */
  readonly keysAtOnce?: number;
  /** Milliseconds between two messages. */
  readonly pace?: number;
  /** Milliseconds for one. Default: 90 s. */
  readonly limit?: number;
}

/** Something that a target is to be told. */
export interface Item {
  /** A newer message under the same key takes the place of one that still waits. */
  readonly key: string;
  /** What it is about, for the log. */
  readonly about: string;
  /** Whose it is: where too much waits, the one with most of it loses its oldest. */
  readonly repo: string;
  readonly message: object;
}

export interface OutboxOptions {
  /** Where messages are kept until they are sent; this process alone works in it. */
  readonly folder: string;
  readonly mask: Mask;
  /** Gets a line for what could not be sent. */
  readonly log: (text: string) => void;
  readonly targets?: readonly Target[];
  /** Milliseconds before the first repetition; each further one waits twice as long. Default: 1 s. */
  readonly backoff?: number;
  /** Milliseconds after which a message that a target does not take is given up. Default: 24 h. */
  readonly patience?: number;
  /** Messages that are kept for one target at most. Default: 1000. */
  readonly maxWaiting?: number;
}

/** A message that waits; its number gives the order, whatever the clock says. */
interface Waiting extends Item {
  readonly target: string;
  readonly number: number;
  /** By `performance.now()`. */
  readonly since: number;
}

/** Messages that are sent one after the other: of a target, or of one of its keys. */
interface Row {
  tries: number;
  notBefore: number;
  sending: Promise<boolean> | undefined;
}

/** A target, and what it is still to be told. */
interface Lane {
  target: OutboxTarget;
  waiting: Waiting[];
  readonly rows: Map<string, Row>;
  notBefore: number;
  timer: NodeJS.Timeout | undefined;
  /** Why it did not take the last message: said once. */
  trouble: string | undefined;
  /** Of whom the log says that the oldest messages are dropped. */
  readonly full: Set<string>;
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
  #people: readonly Target[] = [];
  #telling: Promise<unknown> = Promise.resolve();
  #number = 0;
  #started = false;

  private constructor(options: OutboxOptions) {
    this.#options = options;
    this.#folder = join(options.folder, "outbox");
    this.#subjects = new Subjects(options.folder);
  }

  /** Open a folder, with what a former process left there. Nothing is sent before `start` or `flush`. */
  static async open(options: OutboxOptions, others: readonly OutboxTarget[] = []): Promise<Outbox> {
    const outbox = new Outbox(options);
    await outbox.route(options.targets ?? [], others, await outbox.read());
    return outbox;
  }

  /** Other targets from now on: what waits for one that is gone is dropped. */
  async setTargets(people: readonly Target[], others: readonly OutboxTarget[] = []): Promise<void> {
    await this.route(people, others, []);
    if (this.#started) this.start();
  }

  private async route(people: readonly Target[], others: readonly OutboxTarget[], found: readonly Waiting[]) {
    this.#people = people;
    const targets = new Map([...people.map(toPeople), ...others].map((target) => [target.id, target]));
    const all = [...found, ...[...this.#lanes.values()].flatMap(({ waiting }) => waiting)];
    for (const [id, { timer }] of this.#lanes) {
      clearTimeout(timer);
      if (!targets.has(id)) this.#lanes.delete(id);
    }
    for (const [id, target] of targets) {
      const fresh = { rows: new Map(), timer: undefined, trouble: undefined, full: new Set<string>() };
      const waiting = all.filter((each) => each.target === id);
      const lane = this.#lanes.get(id) ?? { ...fresh, target, waiting, notBefore: 0 };
      this.#lanes.set(id, Object.assign(lane, { target, waiting, notBefore: 0 }));
      // what was corrected is tried at once
      for (const row of lane.rows.values()) row.notBefore = 0;
    }
    for (const each of all.filter(({ target }) => !targets.has(target))) {
      this.say(`notify: the message about ${each.about} is dropped: its target is gone`);
      await this.remove(each);
    }
  }

  /**
   * Tell people. When this resolves it is on disk, and sent whatever becomes of this process; told again under the
   * same id it changes nothing.
   * @returns what it means for its subject.
   */
  async tell(notice: Notice): Promise<Standing> {
    // one after the other: the second failure of a subject is none of the first
    const told = this.#telling.then(async () => {
      const { standing, isKnown } = await this.#subjects.judge(notice);
      if (isKnown) return standing;
      const message = prepare(notice, standing, this.#options.mask);
      const { id: key, subject: about, repo = about } = message;
      for (const { id, when } of this.#people)
        if (isWanted(message, when)) await this.put(id, { key, about, repo, message });
      await this.#subjects.remember(notice, standing);
      return standing;
    });
    this.#telling = told.catch(() => undefined);
    return await told;
  }

  /** Tell one target; it is on disk when this resolves, unless `keep` is false: then it ends with this process. */
  async put(id: string, item: Item, { keep = true } = {}): Promise<void> {
    const target = this.#lanes.get(id);
    if (!target) return;
    const number = ++this.#number;
    if (keep) {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      const kept = { target: id, number, queued: new Date(), ...item };
      await writeAtomic(this.path(number), `${JSON.stringify(kept, null, 2)}\n`, { mode: 0o600 });
    }
    // the targets may be others meanwhile
    const lane = this.#lanes.get(id);
    const waiting = { ...item, target: id, number, since: performance.now() };
    if (!lane) return await this.remove(waiting);
    const former = lane.waiting.filter(({ key }) => key === item.key);
    lane.waiting.push(waiting);
    await this.done(lane, former);
    await this.dropOldest(lane);
    this.schedule(lane);
  }

  /** How many messages wait. */
  get waiting(): number {
    return [...this.#lanes.values()].reduce((sum, { waiting }) => sum + waiting.length, 0);
  }

  /** Send from now on, out of the way. */
  start(): void {
    this.#started = true;
    for (const lane of this.#lanes.values()) this.schedule(lane);
  }

  /** Try once to send all that waits, at once and for at most `limit` milliseconds. */
  async flush(limit: number): Promise<void> {
    const all = [...this.#lanes.values()].map(async (lane) => {
      for (let first = lane.waiting[0]; first && !this.#abort.signal.aborted; first = lane.waiting[0])
        if (!(await this.send(lane, first))) return;
    });
    await Promise.race([Promise.all(all), sleep(limit, undefined, { ref: false })]);
  }

  /** Stop sending. What was not sent stays on disk. */
  async close(): Promise<void> {
    this.#abort.abort();
    for (const { timer, rows } of this.#lanes.values()) {
      clearTimeout(timer);
      for (const { sending } of rows.values()) await sending;
    }
    await this.#telling;
  }

  /** Send what may go now, and look again when the next one may. */
  private schedule(lane: Lane): void {
    clearTimeout(lane.timer);
    if (!this.#started || this.#abort.signal.aborted) return;
    const { keysAtOnce = 1, group: wait = 0 } = lane.target;
    let busy = [...lane.rows.values()].filter(({ sending }) => sending !== undefined).length;
    const heads = new Map<string, Waiting>();
    for (const each of lane.waiting) if (!heads.has(rowOf(lane, each))) heads.set(rowOf(lane, each), each);
    let next = Number.POSITIVE_INFINITY;
    for (const [name, head] of heads) {
      const row = lane.rows.get(name);
      if (row?.sending) continue;
      // when no more of its cause came for a while, yet not ever later
      const quiet = (groupOf(lane, head).at(-1)?.since ?? 0) + wait;
      const due = Math.max(Math.min(quiet, head.since + wait * maxGroups), row?.notBefore ?? 0, lane.notBefore);
      if (due > performance.now()) next = Math.min(next, due);
      else if (busy < keysAtOnce) {
        busy += 1;
        void this.send(lane, head);
      }
    }
    if (next === Number.POSITIVE_INFINITY) return;
    lane.timer = setTimeout(() => this.schedule(lane), Math.max(1, next - performance.now()));
  }

  /** Send a message with those that go with it. @returns whether it is over with. */
  private send(lane: Lane, head: Waiting): Promise<boolean> {
    const name = rowOf(lane, head);
    const row = lane.rows.get(name) ?? { tries: 0, notBefore: 0, sending: undefined };
    lane.rows.set(name, row);
    row.sending ??= this.sendGroup(lane, row, groupOf(lane, head))
      .catch((error: unknown) => {
        this.say(`${lane.target.name}: ${messageOf(error)}`);
        return false;
      })
      .finally(() => {
        row.sending = undefined;
        if (row.tries === 0) lane.rows.delete(name);
        const { pace = 0 } = lane.target;
        lane.notBefore = Math.max(lane.notBefore, performance.now() + pace);
        this.schedule(lane);
      });
    return row.sending;
  }

  private async sendGroup(lane: Lane, row: Row, group: readonly Waiting[]): Promise<boolean> {
    const { name, limit = 90_000 } = lane.target;
    const inTime = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(limit)]);
    try {
      await lane.target.send(
        group.map(({ message }) => message),
        inTime,
      );
    } catch (error) {
      if (this.#abort.signal.aborted) return false;
      return await this.failed(lane, row, group, error);
    }
    if (lane.trouble !== undefined) this.say(`${name}: takes messages again`);
    lane.trouble = undefined;
    lane.full.clear();
    row.tries = 0;
    await this.done(lane, group);
    return true;
  }

  private async failed(lane: Lane, row: Row, group: readonly Waiting[], error: unknown): Promise<boolean> {
    const { backoff = 1000, patience = 86_400_000, mask } = this.#options;
    const why = cleanLine(mask(messageOf(error)));
    const { final, retryAfter = 0, keyAfter = 0 } = error instanceof NotSent ? error : new NotSent("");
    const untold = (them: readonly Waiting[]) => {
      const more = them.length > 1 ? ` and ${them.length - 1} more` : "";
      return `${lane.target.name}: not told of ${them[0]?.about}${more}`;
    };
    const now = performance.now();
    // never before it was tried: its time may be from a clock that was wrong
    const old = lane.waiting.filter(({ since }) => now - since >= patience);
    const over = final ? group : old.filter((each) => rowOf(lane, each) === rowOf(lane, group[0] as Waiting));
    if (over.length > 0) {
      this.say(`${untold(over)}, ${final ? "and not tried again" : "given up"}: ${why}`);
      await this.done(lane, over);
    }
    if (final) {
      row.tries = 0;
      return true;
    }
    const asked = Math.min(Math.max(retryAfter, keyAfter), longestAsked);
    const grown = Math.max(Math.min(backoff * 2 ** row.tries, longestWait), asked);
    const oldest = lane.waiting.find((each) => rowOf(lane, each) === rowOf(lane, group[0] as Waiting));
    const left = oldest === undefined ? grown : patience - (now - oldest.since);
    const wait = Math.max(1, Math.min(grown, left));
    row.tries = oldest === undefined ? 0 : row.tries + 1;
    row.notBefore = now + wait;
    if (retryAfter > 0) lane.notBefore = Math.max(lane.notBefore, now + wait);
    if (over.length === 0 && lane.trouble !== why)
      this.say(`${untold(group)}, tried again in ${formatDuration(wait)}: ${why}`);
    lane.trouble = why;
    return false;
  }

  /** A target that is away for long fills neither the memory nor the disk, and no repo drops another's messages. */
  private async dropOldest(lane: Lane): Promise<void> {
    const { maxWaiting = 1000 } = this.#options;
    if (lane.waiting.length <= maxWaiting) return;
    const dropped = oldestOfMost(lane.waiting, ({ repo }) => repo);
    if (!lane.full.has(dropped.repo))
      this.say(`${lane.target.name}: ${maxWaiting} messages wait for it; the oldest about ${dropped.repo} are dropped`);
    lane.full.add(dropped.repo);
    await this.done(lane, [dropped]);
  }

  private async done(lane: Lane, group: readonly Waiting[]): Promise<void> {
    lane.waiting = lane.waiting.filter((each) => !group.includes(each));
    for (const each of group) await this.remove(each);
  }

  private async remove({ number }: Waiting): Promise<void> {
    await rm(this.path(number), { force: true });
  }

  private path(number: number): string {
    return join(this.#folder, `${String(number).padStart(8, "0")}.json`);
  }

  /** All that waits on disk, in order. */
  private async read(): Promise<Waiting[]> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await removeStaleTemporaries(this.#folder);
    const found = new Map<string, Waiting>();
    for (const name of (await readdir(this.#folder)).filter((each) => /^[^.].*\.json$/.test(each)).sort())
      try {
        const number = Number.parseInt(name, 10);
        const kept = JSON.parse(await readFile(join(this.#folder, name), "utf8"));
        const { queued, target, key, about, repo, message } = Object(kept) as Record<string, unknown>;
        const texts = [target, key, about, repo];
        const age = Date.now() - Date.parse(String(queued));
        if (!(number > 0) || Number.isNaN(age) || !texts.every((text) => typeof text === "string") || !message)
          throw new Error("is not a message");
        this.#number = Math.max(this.#number, number);
        const waiting = { ...(kept as Item & { target: string }), number, since: performance.now() - Math.max(0, age) };
        const place = JSON.stringify([target, key]);
        const former = found.get(place);
        if (former) await this.remove(former);
        found.set(place, waiting);
      } catch (error) {
        // another process may have sent it meanwhile
        if (systemCode(error) !== "ENOENT")
          this.say(`notify: ${join(this.#folder, name)}: ${messageOf(error)}; left aside`);
      }
    return [...found.values()].sort((a, b) => a.number - b.number);
  }

  private say(text: string): void {
    this.#options.log(text);
  }
}

function rowOf({ target: { keysAtOnce } }: Lane, { key }: Waiting): string {
  return keysAtOnce === undefined ? "" : key;
}

/** What goes out with a message: all that waits of its cause. A recovery never overtakes its failure. */
function groupOf({ target, waiting }: Lane, head: Waiting): Waiting[] {
  const cause = target.causeOf?.(head.message);
  return cause === undefined ? [head] : waiting.filter(({ message }) => target.causeOf?.(message) === cause);
}

function toPeople({ id, name, group, send }: Target): OutboxTarget<Told> {
  return {
    ...{ id, name: `notify: ${name}`, group, causeOf },
    send: (all, signal) => send(composeMessage(all), signal),
  };
}

import { setTimeout as sleep } from "node:timers/promises";
import type { Mask } from "../core/mask.ts";
import { cleanLine } from "../core/clean.ts";
import { messageOf } from "../core/errors.ts";
import { composeMessage } from "./message.ts";
import { isWanted, type Notice, prepare, type Standing } from "./notice.ts";
import { dueOf, type Lane, namesOf, oldestGroup, Outbox, type Pending } from "./outbox.ts";
import { Subjects } from "./subjects.ts";
import { NotSent, type Target } from "./target.ts";

export interface NotifierOptions {
  /** Where notices are kept until they are told; this process alone works in it. */
  readonly folder: string;
  readonly targets: readonly Target[];
  readonly mask: Mask;
  /** Gets a line for what could not be told. */
  readonly log: (text: string) => void;
  /** Milliseconds before the first repetition; each further one waits twice as long. Default: 5 s. */
  readonly backoff?: number;
  /** Milliseconds after which a notice that a target does not take is given up. Default: 24 h. */
  readonly patience?: number;
  /** Notices that are kept for one target at most; of more the oldest are dropped. Default: 1000. */
  readonly maxWaiting?: number;
}

/** The longest wait between two tries, in milliseconds. */
const maxWait = 10 * 60_000;
/** One message must be taken within so many milliseconds. */
const sendLimit = 90_000;

/**
 * Tells people: takes notices, keeps them on disk, and sends them to the targets out of the way of whoever tells.
 * Notices of one cause that come together are one message. What a target does not take is tried again, with growing
 * waits, for a day.
 */
export class Notifier {
  readonly #options: NotifierOptions;
  readonly #outbox: Outbox;
  readonly #subjects: Subjects;
  readonly #abort = new AbortController();
  #lanes: Lane[] = [];
  #telling: Promise<unknown> = Promise.resolve();
  #started = false;

  private constructor(options: NotifierOptions) {
    this.#options = options;
    this.#outbox = new Outbox(options.folder);
    this.#subjects = new Subjects(options.folder);
  }

  /** Open a folder, with what a former process left there. Nothing is sent before `start` or `flush`. */
  static async open(options: NotifierOptions): Promise<Notifier> {
    const notifier = new Notifier(options);
    const pending = await notifier.#outbox.read(options.log);
    await notifier.route(options.targets, pending);
    return notifier;
  }

  /** Other targets from now on: what waits for one that is gone is dropped. */
  async setTargets(targets: readonly Target[]): Promise<void> {
    const pending = new Set(this.#lanes.flatMap(({ waiting }) => waiting));
    for (const { timer } of this.#lanes) clearTimeout(timer);
    await this.route(targets, [...pending]);
    if (this.#started) this.start();
  }

  private async route(targets: readonly Target[], pending: readonly Pending[]): Promise<void> {
    const former = new Map(this.#lanes.map((lane) => [lane.target.id, lane]));
    this.#lanes = targets.map((target) => {
      const lane = former.get(target.id);
      const waiting = pending.filter((each) => each.targets.includes(target.id));
      if (lane) return Object.assign(lane, { target, waiting, notBefore: 0 });
      const fresh = { tries: 0, notBefore: 0, sending: undefined, timer: undefined };
      return { target, waiting, ...fresh, trouble: undefined, isFull: false };
    });
    const known = new Set(targets.map(({ id }) => id));
    for (const each of pending)
      for (const id of each.targets.filter((target) => !known.has(target))) {
        this.say(`a message about ${each.told.subject} is dropped: its target is gone`);
        await this.#outbox.done(each, id);
      }
  }

  /**
   * Tell a notice. When this resolves it is on disk, and sent whatever becomes of this process; told again under the
   * same id it changes nothing.
   * @returns what it means for its subject.
   */
  async tell(notice: Notice): Promise<Standing> {
    // one after the other: the second failure of a subject is none of the first
    const told = this.#telling.then(() => this.tellNow(notice));
    this.#telling = told.catch(() => undefined);
    return await told;
  }

  private async tellNow(notice: Notice): Promise<Standing> {
    const { standing, isKnown } = await this.#subjects.judge(notice);
    if (isKnown) return standing;
    const told = prepare(notice, standing, this.#options.mask);
    const lanes = this.#lanes.filter(({ target }) => isWanted(told, target.when));
    const same = (each: Pending) => each.told.id === notice.id;
    const isThere = this.#lanes.some(({ waiting }) => waiting.some(same));
    if (lanes.length > 0 && !isThere) {
      const queued = new Date().toISOString();
      const pending: Pending = { told, queued, targets: lanes.map(({ target }) => target.id) };
      await this.#outbox.put(pending);
      await this.#subjects.remember(notice, standing);
      for (const lane of lanes) {
        lane.waiting.push(pending);
        await this.dropOldest(lane);
      }
    } else await this.#subjects.remember(notice, standing);
    if (this.#started) for (const lane of lanes) this.schedule(lane);
    return standing;
  }

  /** How many notices wait for a target. */
  get waiting(): number {
    return new Set(this.#lanes.flatMap(({ waiting }) => waiting)).size;
  }

  /** Send from now on, out of the way. */
  start(): void {
    this.#started = true;
    for (const lane of this.#lanes) this.schedule(lane);
  }

  /** Try once to send all that waits, at once and for at most `limit` milliseconds. */
  async flush(limit: number): Promise<void> {
    const all = this.#lanes.map(async (lane) => {
      while (lane.waiting.length > 0 && !this.#abort.signal.aborted) {
        await this.send(lane, Number.POSITIVE_INFINITY);
        if (lane.tries > 0) return;
      }
    });
    await Promise.race([Promise.all(all), sleep(limit, undefined, { ref: false })]);
  }

  /** Stop sending. What was not told stays on disk. */
  async close(): Promise<void> {
    this.#abort.abort();
    for (const { timer } of this.#lanes) clearTimeout(timer);
    for (const { sending } of this.#lanes) await sending;
    await this.#telling;
  }

  private schedule(lane: Lane): void {
    clearTimeout(lane.timer);
    const due = dueOf(lane);
    if (due === undefined || lane.sending || this.#abort.signal.aborted) return;
    const wait = Math.min(Math.max(0, due - Date.now()), maxWait);
    lane.timer = setTimeout(() => void this.send(lane, Date.now()), wait);
  }

  /** Send one message, if its time has come. */
  private async send(lane: Lane, now: number): Promise<void> {
    if (lane.sending) return await lane.sending;
    lane.sending = this.sendOldest(lane, now)
      .catch((error: unknown) => this.say(`telling ${lane.target.name}: ${messageOf(error)}`))
      .finally(() => {
        lane.sending = undefined;
        if (this.#started) this.schedule(lane);
      });
    await lane.sending;
  }

  private async sendOldest(lane: Lane, now: number): Promise<void> {
    const { target } = lane;
    await this.giveUp(lane);
    const due = dueOf(lane);
    if (due === undefined || due > now) return;
    const group = oldestGroup(lane);
    const signal = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(sendLimit)]);
    try {
      await target.send(composeMessage(group.map(({ told }) => told)), signal);
    } catch (error) {
      if (this.#abort.signal.aborted) return;
      return await this.failed(lane, group, error);
    }
    if (lane.trouble !== undefined) this.say(`${target.name}: takes messages again`);
    [lane.tries, lane.notBefore, lane.trouble, lane.isFull] = [0, 0, undefined, false];
    await this.done(lane, group);
  }

  private async failed(lane: Lane, group: readonly Pending[], error: unknown): Promise<void> {
    const { name } = lane.target;
    const why = cleanLine(this.#options.mask(messageOf(error)));
    if (error instanceof NotSent && error.final) {
      this.say(`${name}: not told of ${namesOf(group)}, and not tried again: ${why}`);
      return await this.done(lane, group);
    }
    lane.tries += 1;
    const { backoff = 5000 } = this.#options;
    const asked = error instanceof NotSent ? (error.retryAfter ?? 0) : 0;
    const wait = Math.max(Math.min(backoff * 2 ** (lane.tries - 1), maxWait), asked);
    lane.notBefore = Date.now() + wait;
    if (lane.trouble !== why) this.say(`${name}: not told of ${namesOf(group)}, tried again: ${why}`);
    lane.trouble = why;
  }

  /** A target that is away for long fills neither the memory nor the disk. */
  private async dropOldest(lane: Lane): Promise<void> {
    const { maxWaiting = 1000 } = this.#options;
    const tooMany = lane.waiting.slice(0, Math.max(0, lane.waiting.length - maxWaiting));
    if (tooMany.length === 0) return;
    if (!lane.isFull) this.say(`${lane.target.name}: ${maxWaiting} messages wait for it; the oldest are dropped`);
    lane.isFull = true;
    await this.done(lane, tooMany);
  }

  /** Drop what is too old to be news. */
  private async giveUp(lane: Lane): Promise<void> {
    const { patience = 86_400_000 } = this.#options;
    const old = lane.waiting.filter(({ queued }) => Date.now() - Date.parse(queued) > patience);
    if (old.length === 0) return;
    this.say(`${lane.target.name}: not told of ${namesOf(old)}, given up: ${lane.trouble ?? "it was not reached"}`);
    await this.done(lane, old);
  }

  private async done(lane: Lane, group: readonly Pending[]): Promise<void> {
    lane.waiting = lane.waiting.filter((each) => !group.includes(each));
    for (const each of group) await this.#outbox.done(each, lane.target.id);
  }

  private say(text: string): void {
    this.#options.log(`notify: ${text}`);
  }
}

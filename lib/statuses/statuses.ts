import type { Mask } from "../core/mask.ts";
import { cleanLine } from "../core/clean.ts";
import { messageOf } from "../core/errors.ts";
import { version } from "../core/version.ts";
import { reasonOf, request } from "../fetch/fetch.ts";
import { type CommitStatus, type Forge, isFinal, judgeAnswer, statusRequest, type Verdict } from "./forges.ts";

/**
 * Commit statuses: what is shown beside a commit at its forge. They are sent out of the way of whoever sets them: one
 * at a time for each commit and context, the newest state only, again with growing waits while a forge is down.
 */
export type { CommitStatus, Forge, ForgeKind, StatusState } from "./forges.ts";
export { forgeSchema, readForges } from "./settings.ts";

export interface StatusesOptions {
  readonly forges: readonly Forge[];
  readonly mask: Mask;
  /** Gets a line for what a forge did not take. */
  readonly log: (text: string) => void;
  /** Milliseconds before the first repetition; each further one waits twice as long. Default: 1 s. */
  readonly backoff?: number;
  /** Milliseconds after which a status is given up. Default: 24 h. */
  readonly patience?: number;
  /** Milliseconds for one request. Default: 30 s. */
  readonly timeout?: number;
}

/** A status that is to be sent. */
interface Wish {
  readonly run: string;
  readonly status: CommitStatus;
  /** When it came to be (ms). */
  readonly since: number;
  /** Told when the forge has it, or never will. */
  readonly onSettled: () => void;
}

/** What one commit shows in one context. */
interface Lane {
  readonly host: string;
  /** The newest state that was not taken yet. */
  wish: Wish | undefined;
  /** The run that was last told of, and whether its end was. */
  last: { run: string; final: boolean } | undefined;
  sending: boolean;
  tries: number;
  notBefore: number;
}

/** How a forge is treated. */
interface Host {
  forge: Forge;
  sending: number;
  /** Not before this time (ms): it asked to wait, or the last request was a moment ago. */
  notBefore: number;
  /** Why it did not take the last status: said once. */
  trouble: string | undefined;
}

/** So many commits whose end was told are known. */
const remembered = 2000;
const maxWait = 5 * 60_000;
/** Requests at once to one forge. */
const atOnce = 4;
/** Milliseconds between two requests to api.github.com, which asks for that much (docs.github.com, rate limits). */
const githubPace = 1000;
/** How long a request whose answer never came may still be at work at the forge, in milliseconds. */
const afterTimeout = 60_000;

/** Sends statuses to their forges. */
export class Statuses {
  readonly #options: StatusesOptions;
  readonly #lanes = new Map<string, Lane>();
  readonly #hosts = new Map<string, Host>();
  readonly #abort = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: StatusesOptions) {
    this.#options = options;
    this.setForges(options.forges);
  }

  /** Other forges from now on. */
  setForges(forges: readonly Forge[]): void {
    const former = new Map(this.#hosts);
    this.#hosts.clear();
    for (const forge of forges) {
      const fresh: Host = { forge, sending: 0, notBefore: 0, trouble: undefined };
      // the same object: what is on its way counts down in it
      const known = former.get(forge.host);
      this.#hosts.set(forge.host, known ? Object.assign(known, { forge, notBefore: 0 }) : fresh);
    }
    for (const [key, lane] of this.#lanes) {
      if (this.#hosts.has(lane.host)) continue;
      this.#lanes.delete(key);
      lane.wish?.onSettled();
    }
    this.schedule();
  }

  /**
   * Show a state of a run beside its commit.
   * @param since when it came to be (ms): it is given up a day after.
   * @param onSettled told when the forge has it, when a newer state took its place, or when it is given up.
   */
  set(
    host: string,
    run: string,
    status: CommitStatus,
    { since = Date.now(), onSettled = () => {} }: { since?: number; onSettled?: () => void } = {},
  ): void {
    if (!this.#hosts.has(host)) return onSettled();
    const key = JSON.stringify([host, status.repo.toLowerCase(), status.sha, status.context]);
    const fresh: Lane = {
      ...{ host, wish: undefined, last: undefined, sending: false, tries: 0, notBefore: 0 },
    };
    const lane = this.#lanes.get(key) ?? fresh;
    this.#lanes.set(key, lane);
    const final = isFinal(status.state);
    // what a run was before its end is no news after it
    if (lane.last?.run === run && lane.last.final && !final) return onSettled();
    lane.last = { run, final };
    lane.wish?.onSettled();
    lane.wish = { run, status, since, onSettled };
    this.schedule();
  }

  /** How many statuses wait. */
  get waiting(): number {
    return [...this.#lanes.values()].filter(({ wish, sending }) => wish || sending).length;
  }

  /** Stop sending. */
  close(): void {
    this.#abort.abort();
    clearTimeout(this.#timer);
  }

  /** Start what may be sent now, and look again when the next one may. */
  private schedule(): void {
    clearTimeout(this.#timer);
    if (this.#abort.signal.aborted) return;
    const now = Date.now();
    let next = Number.POSITIVE_INFINITY;
    for (const lane of this.#lanes.values()) {
      const host = this.#hosts.get(lane.host);
      if (!host || !lane.wish || lane.sending) continue;
      const due = Math.max(lane.notBefore, host.notBefore);
      if (due > now) next = Math.min(next, due);
      else if (host.sending < (paceOf(host.forge) > 0 ? 1 : atOnce)) void this.send(lane, host);
    }
    if (next < Number.POSITIVE_INFINITY) this.#timer = setTimeout(() => this.schedule(), Math.min(next - now, maxWait));
  }

  private async send(lane: Lane, host: Host): Promise<void> {
    const wish = lane.wish as Wish;
    lane.sending = true;
    host.sending += 1;
    try {
      const verdict = this.isTooOld(wish) ? undefined : await this.ask(host.forge, wish.status);
      this.take(verdict, wish, lane, host);
    } catch (error) {
      this.take({ is: "later", why: messageOf(error), isLimit: false }, wish, lane, host);
    } finally {
      lane.sending = false;
      host.sending -= 1;
      host.notBefore = Math.max(host.notBefore, Date.now() + paceOf(host.forge));
      this.forgetOldest();
      this.schedule();
    }
  }

  /** Of what was told long ago nothing more comes. */
  private forgetOldest(): void {
    for (const [key, { wish, sending, last }] of this.#lanes) {
      if (this.#lanes.size <= remembered) return;
      if (!wish && !sending && last?.final) this.#lanes.delete(key);
    }
  }

  private isTooOld({ since }: Wish): boolean {
    const { patience = 86_400_000 } = this.#options;
    return Date.now() - since > patience;
  }

  private take(verdict: Verdict | undefined, wish: Wish, lane: Lane, host: Host): void {
    if (this.#abort.signal.aborted) return;
    const about = `${wish.status.state} of ${wish.status.repo} ${wish.status.sha.slice(0, 12)}`;
    if (verdict?.is === "later") {
      const { backoff = 1000 } = this.#options;
      lane.tries += 1;
      const grown = Math.min(backoff * 2 ** (lane.tries - 1), maxWait);
      const until = Date.now() + Math.max(grown, verdict.wait ?? 0);
      lane.notBefore = until;
      if (verdict.isLimit) host.notBefore = Math.max(host.notBefore, until);
      const why = this.clean(verdict.why);
      if (host.trouble !== why) this.say(host, `does not take ${about}, tried again: ${why}`);
      host.trouble = why;
      return;
    }
    lane.tries = 0;
    // a newer state may have come meanwhile: that one is still to be sent
    if (lane.wish === wish) lane.wish = undefined;
    if (verdict?.is === "taken" && host.trouble !== undefined) {
      this.say(host, "takes statuses again");
      host.trouble = undefined;
    }
    if (verdict?.is === "refused") this.say(host, `refused ${about}: ${this.clean(verdict.why)}`);
    if (!verdict) this.say(host, `was never told ${about}, given up: ${host.trouble ?? ""}`);
    wish.onSettled();
  }

  private async ask(forge: Forge, status: CommitStatus): Promise<Verdict> {
    const { timeout = 30_000 } = this.#options;
    const { url, headers, body } = statusRequest(forge, status);
    const common = { "content-type": "application/json", accept: "application/json" };
    const began = Date.now();
    try {
      const answer = await request(url, {
        method: "POST",
        headers: { ...common, "user-agent": `boatyard/${version}`, ...headers },
        body: JSON.stringify(body),
        throughProxy: true,
        timeout,
        maxBytes: 16 * 1024,
        signal: this.#abort.signal,
      });
      return judgeAnswer(forge.kind, answer, Date.now());
    } catch (error) {
      // the forge may still be at work on it, and must not do so after the next state
      const wait = Date.now() - began >= timeout ? afterTimeout : undefined;
      return { is: "later", why: reasonOf(error), wait, isLimit: false };
    }
  }

  private clean(text: string): string {
    return cleanLine(this.#options.mask(text));
  }

  private say({ forge }: Host, text: string): void {
    this.#options.log(`status: ${forge.host} ${text}`);
  }
}

function paceOf({ api }: Forge): number {
  return new URL(api).host === "api.github.com" ? githubPace : 0;
}

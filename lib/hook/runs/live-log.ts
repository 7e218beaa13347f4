import type { IncomingMessage, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Mask } from "../../core/mask.ts";
import { eventOf, LogEvents } from "./log-events.ts";

/**
 * The logs that somebody follows. New bytes are read once and made into an event once, whose buffer goes to all who
 * follow. An event's id is the log's file and the place after its last line in bytes: whoever comes back with it goes
 * on there, with nothing missing and nothing twice, after a restart of the server, too. Who reads too slowly is left
 * alone until there is room, and is then served from the file.
 */

/** Milliseconds for which lines are gathered: the cost goes with the writes, not with the bytes. */
const gather = 100;
/** Milliseconds between two looks at what else there is to say, and between comments that keep proxies from closing. */
const aboutInterval = 1000;
const pingInterval = 15_000;

export interface LiveLogParts {
  /** The log's file, which may be another one once the run has started. */
  path: () => string;
  mask: () => Mask;
  /** The run's state once nothing more comes. */
  endState: () => string | undefined;
}

interface Follower {
  readonly response: ServerResponse;
  /** Bytes of the log that it has got. */
  at: number;
  /** It takes no more until it has drained, or is being served from the file. */
  isBusy: boolean;
  /** The page's: it wants to hear of the stages, too. */
  readonly about: (() => Promise<string | undefined>) | undefined;
}

export class LiveLogs {
  readonly #feeds = new Map<string, Feed>();

  /** Follow a run's log; resolves when the answer has ended. */
  async follow(
    request: IncomingMessage,
    response: ServerResponse,
    id: string,
    parts: LiveLogParts & { about?: (() => Promise<string | undefined>) | undefined },
  ): Promise<void> {
    // gone while this was prepared: nothing would tell us any more
    if (response.destroyed) return;
    response.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store",
      "x-accel-buffering": "no",
    });
    response.flushHeaders();
    const query = new URL(request.url ?? "/", "http://localhost").searchParams.get("at");
    const from = String(request.headers["last-event-id"] ?? query ?? "");
    const before = this.#feeds.get(id);
    if (before && !before.isOver) return await before.join(response, from, parts.about);
    const feed = new Feed(parts);
    this.#feeds.set(id, feed);
    const joined = feed.join(response, from, parts.about);
    void feed.run().finally(() => {
      if (this.#feeds.get(id) === feed) this.#feeds.delete(id);
    });
    await joined;
  }
}

class Feed {
  readonly #parts: LiveLogParts;
  readonly #followers = new Set<Follower>();
  readonly #log: LogEvents;
  /** Bytes that were read, whole lines. */
  #at = 0;
  #about: string | undefined;
  /** Whether the first follower has said where it begins. */
  #isStarted = false;
  isOver = false;

  constructor(parts: LiveLogParts) {
    this.#parts = parts;
    this.#log = new LogEvents(parts);
  }

  /** Take somebody in, from where they were; resolves when their answer has ended. */
  async join(response: ServerResponse, id: string, about: Follower["about"]): Promise<void> {
    const ended = new Promise<void>((resolve) => response.once("close", resolve));
    const follower: Follower = { response, at: 0, isBusy: true, about };
    response.once("close", () => this.#followers.delete(follower));
    this.#followers.add(follower);
    await this.#log.open();
    const [, ino, at] = /^(\d{1,20})-(\d{1,15})$/.exec(id) ?? [];
    response.write("retry: 1000\n\n");
    if (Number(ino) === this.#log.ino && (await this.#log.isLineStart(Number(at)))) follower.at = Number(at);
    else if (id !== "" && !(Number(at) === 0 && ino === "0"))
      // another file: it was masked at the run's end, or is of another attempt; or a place that no event named
      response.write(`id: ${this.#log.ino}-0\nevent: restart\ndata: ${this.#log.ino}\n\n`);
    if (this.#about !== undefined && about) response.write(this.#about);
    // the first one to come starts where it wants; the others read what they missed
    if (!this.#isStarted) this.#at = follower.at;
    this.#isStarted = true;
    void this.catchUp(follower);
    await ended;
  }

  /** Read what comes, until the run has ended or nobody follows any more. */
  async run(): Promise<void> {
    try {
      let [asked, pinged] = [0, Date.now()];
      while (this.#followers.size > 0) {
        // asked before the log is read: an ended run writes no more
        const end = this.#parts.endState();
        await this.#log.open();
        if (!this.#isStarted) {
          await sleep(10);
          continue;
        }
        const isMore = await this.step(end !== undefined);
        const now = Date.now();
        if (now - asked >= aboutInterval || (end !== undefined && !isMore)) {
          asked = now;
          await this.tellAbout();
        }
        if (!isMore && end !== undefined) {
          await this.finish(end);
          return;
        }
        if (now - pinged >= pingInterval) {
          pinged = now;
          for (const { response, isBusy } of this.#followers) if (!isBusy) response.write(": \n\n");
        }
        if (!isMore) await sleep(gather);
      }
    } finally {
      this.isOver = true;
      await this.#log.close();
      for (const { response } of this.#followers) response.end();
    }
  }

  /** Send one piece to all who have what was before it; false when there was none. */
  private async step(isEnd: boolean): Promise<boolean> {
    const piece = await this.#log.piece(this.#at, { isEnd });
    if (!piece) return false;
    const from = this.#at;
    this.#at = piece.to;
    for (const follower of this.#followers) {
      if (follower.isBusy) continue;
      if (follower.at !== from) {
        if (follower.at < this.#at) void this.catchUp(follower);
        continue;
      }
      follower.at = piece.to;
      if (!follower.response.write(piece.event)) this.waitFor(follower);
    }
    return piece.isFull;
  }

  /** Serve who is behind from the file, as fast as it reads. */
  private async catchUp(follower: Follower): Promise<void> {
    follower.isBusy = true;
    try {
      await this.sendMissed(follower);
    } catch {
      // the disk cannot be read, or the feed ended just now: whoever follows comes back
      follower.response.destroy();
    }
  }

  private async sendMissed(follower: Follower): Promise<void> {
    while (follower.at < this.#at && !follower.response.destroyed && !this.isOver) {
      const piece = await this.#log.piece(follower.at, { limit: this.#at });
      if (!piece) break;
      follower.at = piece.to;
      if (!follower.response.write(piece.event)) return this.waitFor(follower);
    }
    follower.isBusy = false;
  }

  private waitFor(follower: Follower): void {
    follower.isBusy = true;
    follower.response.once("drain", () => void this.catchUp(follower));
  }

  /** Tell the pages of the run's stages, when these have changed: made once for all. */
  private async tellAbout(): Promise<void> {
    const asking = [...this.#followers].find(({ about }) => about !== undefined);
    const text = await asking?.about?.().catch(() => undefined);
    if (text === undefined) return;
    const event = eventOf(text, undefined, "about");
    if (event === this.#about) return;
    this.#about = event;
    for (const { response, about, isBusy } of this.#followers) if (about && !isBusy) response.write(event);
  }

  /** All is sent: say how the run ended, to each once it has all. */
  private async finish(state: string): Promise<void> {
    const deadline = Date.now() + 60_000;
    while (this.#followers.size > 0 && Date.now() < deadline) {
      for (const follower of this.#followers) {
        if (follower.isBusy) continue;
        if (follower.at < this.#at) void this.catchUp(follower);
        else {
          follower.response.end(`event: end\ndata: ${state}\n\n`);
          this.#followers.delete(follower);
        }
      }
      if (this.#followers.size > 0) await sleep(gather);
    }
  }
}

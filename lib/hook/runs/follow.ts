import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Mask } from "../../core/mask.ts";
import { eventOf, LogEvents } from "./log-events.ts";

/** Milliseconds for which lines are gathered, between two looks at what else there is to say, and between comments. */
const [gather, aboutInterval, pingInterval] = [100, 1000, 15_000];

/**
 * Send a log as it grows, as server-sent events, until its run has ended. An event's id is the log's file and the place
 * after its last line: whoever comes back with it goes on there, after a restart of the server, too.
 */
export async function followLog(
  request: IncomingMessage,
  response: ServerResponse,
  parts: {
    /** The log's file, which may not be there yet. */
    path: () => string;
    mask: () => Mask;
    /** The run's state once nothing more comes. */
    endState: () => string | undefined;
    /** What else there is to say, for the page. */
    about?: (() => Promise<string | undefined>) | undefined;
  },
): Promise<void> {
  const log = new LogEvents(parts);
  const type = "text/event-stream; charset=utf-8";
  response.writeHead(200, {
    "content-type": type,
    "cache-control": "no-store",
    "x-accel-buffering": "no",
  });
  const send = async (text: string | Buffer) => {
    // who has gone takes nothing, and is not told of a second time
    if (!response.write(text) && !response.destroyed)
      await Promise.race([once(response, "drain"), once(response, "close")]);
  };
  try {
    await log.open();
    await send("retry: 1000\n\n");
    const query = new URL(request.url ?? "/", "http://localhost").searchParams.get("at");
    let at = await placeOf(log, String(request.headers["last-event-id"] ?? query ?? ""), send);
    let [said, asked, pinged] = ["", 0, Date.now()];
    while (!response.destroyed) {
      // asked before the log is read: an ended run writes no more
      const end = parts.endState();
      await log.open();
      const piece = await log.piece(at, { isEnd: end !== undefined });
      if (piece) {
        at = piece.to;
        await send(piece.event);
        if (piece.isFull || end !== undefined) continue;
      }
      const now = Date.now();
      if (now - asked >= aboutInterval || end !== undefined) {
        asked = now;
        const about = await parts.about?.().catch(() => undefined);
        if (about !== undefined && about !== said) await send(eventOf((said = about), undefined, "about"));
      }
      if (end !== undefined && !piece) return void response.end(`event: end\ndata: ${end}\n\n`);
      if (now - pinged >= pingInterval) await send(": \n\n").then(() => (pinged = now));
      await sleep(gather);
    }
  } finally {
    await log.close();
    response.end();
  }
}

/** Where who comes back goes on. */
async function placeOf(log: LogEvents, id: string, send: (text: string) => Promise<void>): Promise<number> {
  const [, ino, at] = /^(\d{1,20})-(\d{1,15})$/.exec(id) ?? [];
  if (Number(ino) === log.ino && (await log.isLineStart(Number(at)))) return Number(at);
  // another file: it was masked at the run's end, or is of another attempt; or a place that no event named
  if (id !== "" && !(Number(at) === 0 && ino === "0"))
    await send(`id: ${log.ino}-0\nevent: restart\ndata: ${log.ino}\n\n`);
  return 0;
}

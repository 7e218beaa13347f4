import { setTimeout as sleep } from "node:timers/promises";
import { type Answer, NoAnswer } from "./send.ts";

/** What a slave's answer says, and asking again when there is none. */

/** Pure: why an answer is no good, if so. */
export function refusalOf({ status, json, text: body }: Answer): string | undefined {
  if (status >= 200 && status < 300) return undefined;
  const words = wordsOf(json?.["error"]) ?? body;
  return words === "" ? `it answers ${status}` : `it answers ${status}: ${words}`;
}

/** A stranger's word for the table: one line, no control characters. */
export function wordsOf(value: unknown): string | undefined {
  if (typeof value !== "string" || value === "") return undefined;
  return value.replace(/[\x00-\x1f\x7f-\x9f]+/g, " ").slice(0, 500);
}

/** Ask again, with growing pauses, when no answer came or the slave was too busy. */
export async function withRetries(
  ask: () => Promise<Answer>,
  { retries, signal }: { retries: number; signal?: AbortSignal | undefined },
): Promise<Answer> {
  for (let round = 0; ; round++) {
    let wait = 200 * 2 ** round * (0.5 + Math.random());
    try {
      const answer = await ask();
      const busy = answer.status === 429 || answer.status === 502 || answer.status === 503;
      if (!busy || round >= retries) return answer;
      wait = Math.max(wait, Math.min(answer.retryAfter ?? 0, 10_000));
    } catch (error) {
      if (!(error instanceof NoAnswer) || round >= retries || signal?.aborted) throw error;
    }
    await pause(wait, signal);
  }
}

/** Wait, but not for longer than the run lasts. */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return sleep(ms, undefined, signal ? { signal } : {}).catch(() => {});
}

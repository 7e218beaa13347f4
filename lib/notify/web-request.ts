import { messageOf } from "../core/errors.ts";
import { version } from "../core/version.ts";
import { type Answer, parseRetryAfter, reasonOf, request } from "../fetch/fetch.ts";
import { NotSent } from "./not-sent.ts";

/** Milliseconds for one request. */
const timeout = 30_000;

/** A JSON request and its answer, whatever its status. @throws {NotSent} when none comes. */
export async function postJson(
  url: string,
  body: object,
  { headers = {}, signal }: { headers?: Record<string, string>; signal?: AbortSignal | undefined },
): Promise<Answer> {
  try {
    return await request(url, {
      method: "POST",
      body: JSON.stringify(body),
      headers: {
        "content-type": "application/json",
        accept: "application/json",
        "user-agent": `boatyard/${version}`,
        ...headers,
      },
      throughProxy: true,
      timeout,
      maxBytes: 16 * 1024,
      signal,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new NotSent(`no answer: ${reasonOf(error) || messageOf(error)}`);
  }
}

/** Answers that stay the same however often it is tried. */
const lasting = new Set([400, 404, 405, 410, 413, 415, 422]);

/** Take what a chat or another receiver answered. @throws {NotSent} unless it took the message. */
export function acceptAnswer({ status, headers, text }: Answer): void {
  if (status >= 200 && status < 300) return;
  if (status >= 300 && status < 400)
    throw new NotSent(`it answered ${status}, a redirect, which is not followed; correct its URL`, {
      final: true,
    });
  const said = text.replace(/\s+/g, " ").trim().slice(0, 200);
  throw new NotSent(`it answered ${status}${said === "" ? "" : `: ${said}`}`, {
    final: lasting.has(status),
    retryAfter: parseRetryAfter(headers["retry-after"], Date.now()) ?? retryInBody(status, text),
  });
}

/** Discord says in the body how many seconds to wait. */
function retryInBody(status: number, text: string): number | undefined {
  if (status !== 429) return undefined;
  try {
    const { retry_after: seconds } = JSON.parse(text) as { retry_after?: unknown };
    return typeof seconds === "number" ? Math.min(seconds, 3600) * 1000 : undefined;
  } catch {
    return undefined;
  }
}

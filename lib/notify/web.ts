import { messageOf } from "../core/errors.ts";
import { version } from "../core/version.ts";
import { type Answer, parseRetryAfter, reasonOf, request } from "../fetch/fetch.ts";
import { chatPayload, type Shape, withoutLinks } from "./chat.ts";
import { type Message, plainText, titleOf } from "./message.ts";
import { cut } from "./notice.ts";
import { NotSent, type Send } from "./target.ts";

/** Messages by HTTP: to the webhook of a chat, to any URL that takes JSON, to a topic of ntfy. */

/** A chat's incoming webhook, or any URL that takes JSON. */
export function webhook(url: string, { shape, token }: { shape: Shape | "plain"; token: string | undefined }): Send {
  return async (message, signal) => {
    const body = shape === "plain" ? plainPayload(message) : chatPayload(message, shape);
    const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const headers = { "idempotency-key": message.id, ...authorization };
    acceptAnswer(await postJson(url, body, { headers, signal }));
  };
}

/** So many notices of a burst are listed; receivers take no endless body. */
const maxListed = 100;

/** The JSON for a receiver of one's own: all that is known, as it is. */
export function plainPayload(message: Message): object {
  const { all, newest } = message;
  return {
    ...newest,
    id: message.id,
    title: newest.title,
    message: titleOf(message),
    text: plainText(message),
    count: all.length,
    notices: all.slice(-maxListed).map((notice) => ({ ...notice, lines: undefined })),
  };
}

/** More bytes than this would become an attachment (https://docs.ntfy.sh/publish/#limitations). */
const maxBytes = 4000;

/** A topic of an ntfy server: the message as JSON to its root. */
export function ntfy(server: string, { topic, token }: { topic: string; token: string | undefined }): Send {
  return async (message, signal) => {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    acceptAnswer(await postJson(server, ntfyPayload(message, topic), { headers, signal }));
  };
}

/** The JSON that ntfy takes; its apps make links of what looks like one, and show no markup unless asked. */
export function ntfyPayload(message: Message, topic: string): object {
  const { url, newest } = message;
  const failed = newest.outcome === "failed";
  let { lines } = message;
  const text = () => withoutLinks(plainText({ ...message, lines, url: undefined }));
  while (lines.length > 0 && Buffer.byteLength(text()) > maxBytes) lines = lines.slice(1);
  return {
    topic,
    title: withoutLinks(cut(titleOf(message), 120)),
    message: shortened(text()),
    priority: failed ? 4 : 3,
    tags: [failed ? "rotating_light" : newest.outcome === "ok" ? "white_check_mark" : "package"],
    ...(url === undefined ? {} : { click: url }),
  };
}

function shortened(text: string): string {
  let short = text;
  while (Buffer.byteLength(short) > maxBytes) short = cut(short, Math.floor(short.length * 0.9));
  return short;
}

/** Milliseconds for one request. */
const timeout = 30_000;

/** A JSON request and its answer, whatever its status. @throws {NotSent} when none comes. */
async function postJson(
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
function acceptAnswer({ status, headers, text }: Answer): void {
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

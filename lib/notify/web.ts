import { type Infer, y } from "../config/yaml.ts";
import { messageOf, UsageError } from "../core/errors.ts";
import { version } from "../core/version.ts";
import { type Answer, parseRetryAfter, reasonOf, request } from "../fetch/fetch.ts";
import { chatPayload, withoutLinks } from "./chat.ts";
import { type Message, plainText, titleOf } from "./message.ts";
import { cut } from "./notice.ts";
import { type Entry, NotSent, type Person } from "./target.ts";

/** Messages by HTTP: to the webhook of a chat, to any URL that takes JSON, to a topic of ntfy. */

const webUrl = y.string({ match: /^https?:\/\/[^\s/]/, what: "an http or https URL" });

export const webhookSchema = y.object({
  url: y.optional(webUrl),
  url_file: y.optional(y.string()),
  shape: y.optional(y.choice(["plain", "slack", "mattermost", "discord"]), "plain"),
  token_file: y.optional(y.string()),
});

/** A chat's incoming webhook, or any URL that takes JSON. @throws {UsageError} */
export async function readWebhook(
  { url, url_file, shape, token_file }: Infer<typeof webhookSchema>,
  { where, secret }: Entry,
): Promise<Person> {
  if ((url === undefined) === (url_file === undefined))
    throw new UsageError(`${where}: a webhook takes either url or url_file`);
  const address = url ?? (await secret(url_file ?? ""));
  if (!/^https?:\/\//.test(address) || !URL.canParse(address))
    throw new UsageError(`${where}: what is in url_file is not an http or https URL`);
  const token = token_file === undefined ? undefined : await secret(token_file);
  const { host, pathname, search } = new URL(address);
  return {
    id: `webhook ${shape} ${address}`,
    name: `${shape === "plain" ? "webhook" : shape} at ${host}`,
    // who has the address of a chat's webhook can write there
    secrets: [token ?? "", `${pathname}${search}`.slice(1)].filter((each) => each.length >= 8),
    send: async (message, signal) => {
      const body = shape === "plain" ? plainPayload(message) : chatPayload(message, shape);
      await post(address, body, { token, signal, headers: { "idempotency-key": message.id } });
    },
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

export const ntfySchema = y.object({
  server: y.optional(webUrl, "https://ntfy.sh"),
  topic: y.string({ match: /^[-_A-Za-z0-9]{1,64}$/, what: "a topic: letters, digits, - and _" }),
  token_file: y.optional(y.string()),
});

/** A topic of an ntfy server: the message as JSON to its root. @throws {UsageError} */
export async function ntfy(
  { server, topic, token_file }: Infer<typeof ntfySchema>,
  { secret }: Entry,
): Promise<Person> {
  const token = token_file === undefined ? undefined : await secret(token_file);
  return {
    id: `ntfy ${server} ${topic}`,
    name: `ntfy topic ${topic} at ${new URL(server).host}`,
    secrets: token === undefined ? [] : [token],
    send: async (message, signal) => await post(server, ntfyPayload(message, topic), { token, signal }),
  };
}

/** More bytes than this would become an attachment (https://docs.ntfy.sh/publish/#limitations). */
const maxBytes = 4000;

/** The JSON that ntfy takes; its apps make links of what looks like one, and show no markup unless asked. */
export function ntfyPayload(message: Message, topic: string): object {
  const { url, newest } = message;
  const failed = newest.outcome === "failed";
  let { lines } = message;
  const textOf = () => withoutLinks(plainText({ ...message, lines, url: undefined }));
  while (lines.length > 0 && Buffer.byteLength(textOf()) > maxBytes) lines = lines.slice(1);
  let text = textOf();
  while (Buffer.byteLength(text) > maxBytes) text = cut(text, Math.floor(text.length * 0.9));
  return {
    topic,
    title: withoutLinks(cut(titleOf(message), 120)),
    message: text,
    priority: failed ? 4 : 3,
    tags: [failed ? "rotating_light" : newest.outcome === "ok" ? "white_check_mark" : "package"],
    ...(url === undefined ? {} : { click: url }),
  };
}

/** Answers that stay the same however often it is tried. */
const lasting = new Set([400, 404, 405, 410, 413, 415, 422]);

/** @throws {NotSent} unless the receiver took it. */
async function post(
  url: string,
  body: object,
  { token, headers, signal }: { token: string | undefined; headers?: Record<string, string>; signal: AbortSignal },
): Promise<void> {
  const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const { status, headers: answered, text } = await postJson(url, body, { ...authorization, ...headers }, signal);
  if (status >= 200 && status < 300) return;
  if (status >= 300 && status < 400)
    throw new NotSent(`it answered ${status}, a redirect, which is not followed; correct its URL`, { final: true });
  throw new NotSent(answerOf(status, text), {
    final: lasting.has(status),
    retryAfter: parseRetryAfter(answered["retry-after"], Date.now()) ?? retryInBody(status, text),
  });
}

/** `it answered 500: no room`. */
export function answerOf(status: number, text: string): string {
  const said = text.replace(/\s+/g, " ").trim().slice(0, 200);
  return `it answered ${status}${said === "" ? "" : `: ${said}`}`;
}

/** A JSON request and its answer, whatever its status. @throws {NotSent} when none comes within 30 seconds. */
export async function postJson(
  url: string,
  body: object,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<Answer> {
  const json = { "content-type": "application/json", accept: "application/json" };
  try {
    return await request(url, {
      method: "POST",
      body: JSON.stringify(body),
      headers: { ...json, "user-agent": `boatyard/${version}`, ...headers },
      throughProxy: true,
      timeout: 30_000,
      maxBytes: 16 * 1024,
      signal,
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new NotSent(`no answer: ${reasonOf(error) || messageOf(error)}`);
  }
}

/** Discord says in the body how many seconds to wait. */
function retryInBody(status: number, text: string): number | undefined {
  const seconds = status === 429 ? Number(/"retry_after":\s*([\d.]+)/.exec(text)?.[1]) : Number.NaN;
  return Number.isNaN(seconds) ? undefined : Math.ceil(seconds * 1000);
}

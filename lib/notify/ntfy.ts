import { withoutLinks } from "./chat.ts";
import { type Message, plainText, titleOf } from "./message.ts";
import { cut } from "./notice.ts";
import type { Send } from "./target.ts";
import { acceptAnswer, postJson } from "./web-request.ts";

/** More bytes than this would become an attachment (https://docs.ntfy.sh/publish/#limitations). */
const maxBytes = 4000;

/** A topic of an ntfy server: the message as JSON to its root. */
export function ntfy(
  server: string,
  { topic, token }: { topic: string; token: string | undefined },
): Send {
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

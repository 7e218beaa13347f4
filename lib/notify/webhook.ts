import { chatPayload, type Shape } from "./chat.ts";
import { type Message, plainText, titleOf } from "./message.ts";
import type { Send } from "./target.ts";
import { acceptAnswer, postJson } from "./web-request.ts";

/** A chat's incoming webhook, or any URL that takes JSON. */
export function webhook(
  url: string,
  { shape, token }: { shape: Shape | "plain"; token: string | undefined },
): Send {
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

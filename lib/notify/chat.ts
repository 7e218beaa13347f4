import type { Message } from "./message.ts";
import { cut } from "./notice.ts";

/**
 * A message as chats take it. What comes from outside (a commit's message, an author, a log) stands in a code block,
 * where nothing is markup, and cannot leave it; mentions and links in it are broken by a space without width. Pure.
 */
export type Shape = "slack" | "mattermost" | "discord";

const noWidth = "\u200b";

/** Characters that one message may have; the rest of a log is left out, its oldest lines first. */
const most: Record<Shape, number> = { slack: 3500, mattermost: 8000, discord: 1900 };

/** A text in which no chat finds a mention or a link. */
export function withoutLinks(text: string): string {
  return text
    .replace(/[@!]/g, (sign) => `${sign}${noWidth}`)
    .replaceAll("://", `:${noWidth}//`)
    .replace(/\bwww\./gi, (word) => `${word.slice(0, 3)}${noWidth}.`);
}

/** A text for a code block: no run of backquotes or tildes can close it. */
function forBlock(text: string, shape: Shape): string {
  const plain = withoutLinks(text).replace(/(`|~)(?=\1)/g, `$1${noWidth}`);
  return shape === "slack" ? escapeForSlack(plain) : plain;
}

/** A text for code in a line. */
function forInlineCode(text: string, shape: Shape): string {
  const plain = withoutLinks(text).replaceAll("`", "'");
  return `\`${shape === "slack" ? escapeForSlack(plain) : plain}\``;
}

/** Slack's three control characters (https://docs.slack.dev/messaging/formatting-message-text). */
function escapeForSlack(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** The text of a message for a chat. */
export function chatText({ headline, about, facts, lines, url }: Message, shape: Shape): string {
  const block = (text: string) => forBlock(text, shape);
  const bold = shape === "slack" ? "*" : "**";
  const head = `${bold}${headline}${bold} ${forInlineCode(cut(about, 200), shape)}`;
  const foot = url === undefined ? "" : `\n${linkOf(url, shape)}`;
  const fence = "```";
  const shown = facts.map(([label, text]) => block(`${label}: ${text}`));
  const log = lines.map(block);
  const room = most[shape] - head.length - foot.length - 2 * fence.length - 4;
  while (log.length > 0 && sizeOf([...shown, "", ...log]) > room) log.shift();
  while (shown.length > 1 && sizeOf(shown) > room) shown.pop();
  const body = [...shown, ...(log.length > 0 ? ["", ...log] : [])].join("\n");
  return `${head}\n${fence}\n${body}\n${fence}${foot}`;
}

function sizeOf(lines: readonly string[]): number {
  return lines.reduce((sum, line) => sum + line.length + 1, 0);
}

/** The link to the run's page: ours, from the configuration. */
function linkOf(url: string, shape: Shape): string {
  return shape === "slack" ? `<${escapeForSlack(url)}>` : url;
}

/** The JSON that a chat's webhook takes. */
export function chatPayload(message: Message, shape: Shape): object {
  const text = chatText(message, shape);
  if (shape === "discord") return { content: text, allowed_mentions: { parse: [] } };
  if (shape === "mattermost") return { text };
  return { text, link_names: false, unfurl_links: false, unfurl_media: false };
}

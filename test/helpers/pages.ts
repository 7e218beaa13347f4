// The commands of the documents, as they stand there: the pages are the source, the tests run them.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { root } from "./runtime.ts";
import { scriptNames } from "../../tools/scripts.ts";

export type Block = { tags: string[]; text: string };

/** The ```sh blocks of a page in docs/, with the words after `sh`. */
export async function shellBlocks(page: string): Promise<Block[]> {
  const text = await readFile(join(root, "docs", page), "utf8");
  return [...text.matchAll(/^```sh([^\n]*)\n([\s\S]*?)^```$/gm)].map(([, tags = "", body = ""]) => ({
    tags: tags.trim().split(" "),
    text: body,
  }));
}

/** A text with what only the reader knows put in its place; a word that is not there is a mistake in the test. */
export function filledIn(text: string, words: Record<string, string>): string {
  let result = text;
  for (const [word, value] of Object.entries(words)) {
    if (!text.includes(word)) throw new Error(`the page does not say "${word}" any more`);
    result = result.replaceAll(word, value);
  }
  return result;
}

/** A command on a terminal, where its question is answered with yes. */
export function answered(command: string): string {
  const quoted = `'${command.trim().replaceAll("'", "'\\''")}'`;
  return `(sleep 1; echo y; sleep 1) | script --quiet --return --command ${quoted} /dev/null`;
}

/** A page that is typed in bit by bit; what nobody typed is told at the end. */
export type Page = {
  /** The text of the fenced block (any language) that holds `part`, or is `part`. */
  block: (part: string, words?: Record<string, string>) => string;
  /** A command in running text or in a table, as it stands there between backticks. */
  inline: (command: string, words?: Record<string, string>) => string;
  /** The shell blocks, and the commands of ours or for root in running text, that were not asked for. */
  untyped: () => string[];
};

export async function openPage(name: string): Promise<Page> {
  const text = await readFile(join(root, "docs", name), "utf8");
  const fence = /^```(\w*)[^\n]*\n([\s\S]*?)^```$/gm;
  const blocks = [...text.matchAll(fence)].map(([, kind = "", body = ""]) => ({ kind, body }));
  const spans = [...text.replace(fence, "").matchAll(/(?<!`)`([^`]+)`/g)].map(([, span = ""]) =>
    span.replace(/\s+/g, " "),
  );
  const ours = [...(await scriptNames()), "systemctl", "runuser", "node"];
  const command = new RegExp(`^(?:${ours.join("|")}) [-\\w~/]`);
  const open = new Set([
    ...blocks.filter(({ kind }) => kind === "sh").map(({ body }) => body),
    ...spans.filter((span) => command.test(span)),
  ]);
  return {
    block(part, words = {}) {
      const found = blocks.filter(({ body }) => body.includes(part));
      const body = found.find(({ body: each }) => each === part)?.body ?? found[0]?.body;
      if (body === undefined || (found.length > 1 && body !== part))
        throw new Error(`${name} has ${found.length} blocks with "${part}"`);
      open.delete(body);
      return filledIn(body, words);
    },
    inline(span, words = {}) {
      if (!spans.includes(span)) throw new Error(`${name} does not say \`${span}\` any more`);
      open.delete(span);
      return filledIn(span, words);
    },
    untyped: () => [...open],
  };
}

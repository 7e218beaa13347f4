// The commands of the documents, as they stand there: the pages are the source, the tests run them.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { root } from "./runtime.ts";

export type Block = { tags: string[]; text: string };

/** The ```sh blocks of a page in docs/, with the words after `sh`. */
export async function shellBlocks(page: string): Promise<Block[]> {
  const text = await readFile(join(root, "docs", page), "utf8");
  return [...text.matchAll(/^```sh([^\n]*)\n([\s\S]*?)^```$/gm)].map(
    ([, tags = "", body = ""]) => ({
      tags: tags.trim().split(" "),
      text: body,
    }),
  );
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

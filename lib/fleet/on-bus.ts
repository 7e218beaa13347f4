/** How letters lie on a bus: under the key of whom they are for, one for each repo, and one question. */

/** Where the question stands, among the names of repos. */
export const questionKey = "?";

/**
 * The letters that stand under one key, by repo.
 * @returns undefined for what cannot be read; what is no letter's text is left out
 */
export function readLetters(text: string): Record<string, string> | undefined {
  try {
    const pairs = Object.entries(Object(JSON.parse(text)) as object);
    return Object.fromEntries(pairs.filter(([, each]) => typeof each === "string" && each.startsWith("v2."))) as Record<
      string,
      string
    >;
  } catch {
    return undefined;
  }
}

import { UsageError } from "../core/errors.ts";
import { type List, makeEntry, parseLines } from "./manifest.ts";

/**
 * cloudinary.txt: one picture in several sizes, as lines of the manifest. Pure.
 * One field sets the prefix; three are SOURCE, TRANSFORMATION, PATH, where lists `{a,b}` expand and
 * `{}`, `{1}`, `{2}` in the path take their values.
 * The shape of the URL: https://cloudinary.com/documentation/transformation_reference
 */
export function parseCloudinary(text: string, name: string): List {
  let prefix: string | undefined;
  return parseLines(text, name, (line, where) => {
    const [source = "", transformation, ...rest] = line.split(" ");
    if (transformation === undefined) {
      // a wrong prefix is named once, and not again at every line below it
      prefix = source.replace(/\/+$/, "");
      checkPrefix(source);
      return [];
    }
    if (prefix === undefined)
      throw new UsageError("no prefix above this line; write https://res.cloudinary.com/CLOUD/image/upload");
    // as in the manifest, the rest is the path with all its spaces
    const path = rest.join(" ");
    checkLine(source, transformation, path);
    return expand(prefix, source, transformation, path).map((made) => makeEntry(made.url, made.path, where));
  });
}

const list = /\{([^{}]*)\}/g;
/** So many pictures from one line are a mistake rather than a wish. */
const maxOfOneLine = 1000;

function checkPrefix(prefix: string): void {
  if (!/^https?:\/\/[^/]+/.test(prefix))
    throw new UsageError(
      `"${prefix}" is neither a prefix (an http or https URL) nor a line SOURCE TRANSFORMATION PATH`,
    );
  if (/[#?]/.test(prefix)) throw new UsageError("a prefix has no ? and no #");
}

function checkLine(source: string, transformation: string, path: string): void {
  const wrong = (reason: string) => new UsageError(reason);
  if (source === "") throw wrong("the line starts with a space; the source comes first");
  if (path === "") throw wrong("no path; write SOURCE TRANSFORMATION PATH");
  if (transformation === "") throw wrong("two spaces after the source; write - for no transformation");
  if (/^[a-z]+:\/\//i.test(source)) throw wrong("the source is a whole URL; write what follows the prefix");
  if (/[#?]/.test(transformation)) throw wrong("the transformation has a ? or #; a version goes behind the source");
  if (/[{}]/.test(transformation.replace(list, "")))
    throw wrong("a brace in the transformation has no partner, or lists lie in one another");
  const lists = listsIn(transformation);
  if (lists.flat().includes("")) throw wrong("a list in the transformation has an empty value");
  if (lists.reduce((count, values) => count * values.length, 1) > maxOfOneLine)
    throw wrong(`the lists make more than ${maxOfOneLine} pictures of one line`);
  const used = new Set<number>();
  for (const [, word = ""] of path.matchAll(list)) {
    if (word === "" && lists.length > 1)
      throw wrong(`{} in the path could be any of ${lists.length} lists; write {1} to {${lists.length}}`);
    const index = word === "" ? 1 : Number(word);
    if (!/^\d*$/.test(word) || index < 1 || index > lists.length)
      throw wrong(`{${word}} in the path stands for no list of the transformation`);
    used.add(index);
  }
  const unused = lists.findIndex((_, index) => !used.has(index + 1)) + 1;
  if (unused > 0) {
    const place = lists.length > 1 ? unused : "";
    throw wrong(`list ${unused} of the transformation has no place in the path; write {${place}}`);
  }
}

function listsIn(transformation: string): string[][] {
  return [...transformation.matchAll(list)].map((match) => (match[1] ?? "").split(","));
}

/** All combinations of a line's lists, the last list turning fastest. */
function expand(prefix: string, source: string, transformation: string, path: string): { url: string; path: string }[] {
  let choices: string[][] = [[]];
  for (const values of listsIn(transformation))
    choices = choices.flatMap((choice) => values.map((value) => [...choice, value]));
  const [, name = "", fragment = ""] = /^([^#]*)(.*)$/.exec(source) ?? [];
  return choices.map((choice) => {
    let next = 0;
    const chosen = transformation.replace(list, () => choice[next++] ?? "");
    if (/(?:^|[,/])f_auto(?:[,/]|$)/.test(chosen))
      throw new UsageError("f_auto gives bytes that depend on who asks; name the format by the path's extension");
    const to = path.replace(list, (_, word: string) => choice[word === "" ? 0 : Number(word) - 1] ?? "");
    const parts = [prefix, ...(chosen === "-" ? [] : [chosen]), withExtensionOf(name, to)];
    return { url: parts.join("/") + fragment, path: to };
  });
}

/** The path's extension says the format that is asked for; a path without one leaves the source's. */
function withExtensionOf(source: string, path: string): string {
  const wanted = /[^/.](\.[A-Za-z0-9]+)$/.exec(path)?.[1];
  if (wanted === undefined) return source;
  const own = /[^/.](\.[A-Za-z0-9]+)$/.exec(source)?.[1];
  return (own === undefined ? source : source.slice(0, -own.length)) + wanted;
}

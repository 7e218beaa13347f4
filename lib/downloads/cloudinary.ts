import { type Entry, type Fault, fault, isComment, makeEntry, manifestLines } from "./manifest.ts";

/**
 * cloudinary.txt: one picture in several sizes, as lines of the manifest. Pure.
 * One field sets the prefix; three are SOURCE, TRANSFORMATION, PATH, where lists `{a,b}` expand and
 * `{}`, `{1}`, `{2}` in the path take their values.
 * The shape of the URL: https://cloudinary.com/documentation/transformation_reference
 */
export function parseCloudinary(text: string, name: string): { entries: Entry[]; faults: Fault[] } {
  const entries: Entry[] = [];
  const faults: Fault[] = [];
  let prefix: string | undefined;
  manifestLines(text).forEach((line, index) => {
    if (isComment(line)) return;
    const where = `${name}:${index + 1}`;
    const [source = "", transformation, ...rest] = line.split(" ");
    if (transformation === undefined) {
      const wrong = prefixFault(source);
      if (wrong) faults.push(fault(where, wrong));
      // a wrong prefix is named once, and not again at every line below it
      prefix = source.replace(/\/+$/, "");
      return;
    }
    // as in the manifest, the rest is the path with all its spaces
    const path = rest.join(" ");
    const wrong =
      prefix === undefined
        ? "no prefix above this line; write https://res.cloudinary.com/CLOUD/image/upload"
        : lineFault(source, transformation, path, rest.length);
    if (wrong) {
      faults.push(fault(where, wrong));
      return;
    }
    for (const made of expand(prefix ?? "", source, transformation, path)) {
      const entry = /(?:^|[,/])f_auto(?:[,/]|$)/.test(made.transformation)
        ? fault(
            where,
            "f_auto gives bytes that depend on who asks; name the format by the path's extension",
          )
        : makeEntry(made.url, made.path, where);
      if ("reason" in entry) {
        faults.push(entry);
        return;
      }
      entries.push(entry);
    }
  });
  return { entries, faults };
}

const list = /\{([^{}]*)\}/g;
/** So many pictures from one line are a mistake rather than a wish. */
const maxOfOneLine = 1000;

function prefixFault(prefix: string): string | undefined {
  if (!/^https?:\/\/[^/]+/.test(prefix))
    return `"${prefix}" is neither a prefix (an http or https URL) nor a line SOURCE TRANSFORMATION PATH`;
  return /[#?]/.test(prefix) ? "a prefix has no ? and no #" : undefined;
}

function lineFault(
  source: string,
  transformation: string,
  path: string,
  fields: number,
): string | undefined {
  if (source === "") return "the line starts with a space; the source comes first";
  if (fields === 0 || path === "") return "no path; write SOURCE TRANSFORMATION PATH";
  if (transformation === "") return "two spaces after the source; write - for no transformation";
  if (/^[a-z]+:\/\//i.test(source))
    return "the source is a whole URL; write what follows the prefix";
  if (/[#?]/.test(transformation))
    return "the transformation has a ? or #; a version goes behind the source";
  const lists = [...transformation.matchAll(list)].map((match) => (match[1] ?? "").split(","));
  if (/[{}]/.test(transformation.replace(list, "")))
    return "a brace in the transformation has no partner, or lists lie in one another";
  if (lists.some((values) => values.some((value) => value === "")))
    return "a list in the transformation has an empty value";
  if (lists.reduce((count, values) => count * values.length, 1) > maxOfOneLine)
    return `the lists make more than ${maxOfOneLine} pictures of one line`;
  return placeholderFault(path, lists.length);
}

function placeholderFault(path: string, lists: number): string | undefined {
  const used = new Set<number>();
  for (const match of path.matchAll(list)) {
    const word = match[1] ?? "";
    if (word === "" && lists > 1)
      return `{} in the path could be any of ${lists} lists; write {1} to {${lists}}`;
    const index = word === "" ? 1 : Number(word);
    if (!/^\d*$/.test(word) || index < 1 || index > lists)
      return `{${word}} in the path stands for no list of the transformation`;
    used.add(index);
  }
  for (let index = 1; index <= lists; index++)
    if (!used.has(index))
      return `list ${index} of the transformation has no place in the path; write {${lists > 1 ? index : ""}}`;
  return undefined;
}

/** All combinations of a line's lists, the last list turning fastest. */
function expand(
  prefix: string,
  source: string,
  transformation: string,
  path: string,
): { url: string; path: string; transformation: string }[] {
  const lists = [...transformation.matchAll(list)].map((match) => (match[1] ?? "").split(","));
  let choices: string[][] = [[]];
  for (const values of lists)
    choices = choices.flatMap((choice) => values.map((value) => [...choice, value]));
  const hash = source.indexOf("#");
  const name = hash < 0 ? source : source.slice(0, hash);
  const fragment = hash < 0 ? "" : source.slice(hash);
  return choices.map((choice) => {
    let next = 0;
    const chosen = transformation.replace(list, () => choice[next++] ?? "");
    const to = path.replace(
      list,
      (_, word: string) => choice[word === "" ? 0 : Number(word) - 1] ?? "",
    );
    const parts = [prefix, ...(chosen === "-" ? [] : [chosen]), withExtensionOf(name, to)];
    return { url: parts.join("/") + fragment, path: to, transformation: chosen };
  });
}

/** The path's extension says the format that is asked for; a path without one leaves the source's. */
function withExtensionOf(source: string, path: string): string {
  const wanted = /[^/.](\.[A-Za-z0-9]+)$/.exec(path)?.[1];
  if (wanted === undefined) return source;
  const own = /[^/.](\.[A-Za-z0-9]+)$/.exec(source)?.[1];
  return (own === undefined ? source : source.slice(0, -own.length)) + wanted;
}

/**
 * Texts of which every match of a regular expression must contain at least one, so that lines without
 * them need not be looked at. Pure; undefined when there are none of use.
 */
export function needlesOf(source: string): string[] | undefined {
  const needles: string[] = [];
  for (const branch of branchesOf(source)) {
    const sets = literalsOf(branch);
    const best = sets.reduce((a, b) => (shortest(b) > shortest(a) ? b : a), [""]);
    // one letter is on nearly every line
    if (shortest(best) < 2) return undefined;
    needles.push(...best);
  }
  return needles.length <= 8 ? needles : undefined;
}

function shortest(needles: readonly string[]): number {
  return Math.min(...needles.map(({ length }) => length));
}

/** The alternatives at the top level. */
function branchesOf(source: string): string[] {
  const branches: string[] = [];
  let begin = 0;
  for (let at = 0; at < source.length; at = endOfAtom(source, at)) {
    if (source[at] !== "|") continue;
    branches.push(source.slice(begin, at));
    begin = at + 1;
  }
  return [...branches, source.slice(begin)];
}

/** Where the atom at `at` ends: a group, a class, an escape, or one character. */
function endOfAtom(source: string, at: number): number {
  const first = source[at];
  if (first === "\\") return at + 2;
  if (first === "[") {
    let end = at + 1;
    while (end < source.length && source[end] !== "]") end += source[end] === "\\" ? 2 : 1;
    return end + 1;
  }
  if (first !== "(") return at + 1;
  let end = at + 1;
  while (end < source.length && source[end] !== ")") end = endOfAtom(source, end);
  return end + 1;
}

/** Sets of texts: every match of a branch contains one of each set. */
function literalsOf(branch: string): string[][] {
  const literals: string[][] = [];
  let text = "";
  const finish = () => {
    if (text) literals.push([text]);
    text = "";
  };
  for (let at = 0; at < branch.length; ) {
    const end = endOfAtom(branch, at);
    const atom = branch.slice(at, end);
    const quantifier = /^(?:[*+?]|\{\d+(?:,\d*)?\})\??/.exec(branch.slice(end))?.[0] ?? "";
    const character = characterOf(atom);
    const next = end + quantifier.length;
    if (character === undefined) {
      // the digits of \x41, \u0041, \cA and \1 belong to the escape
      finish();
      const inner = /^\((?:\?:)?(?!\?)([^]*)\)$/.exec(atom)?.[1];
      const set =
        inner !== undefined && !/^[*?]|^\{0/.test(quantifier) ? needlesOf(inner) : undefined;
      if (set) literals.push(set);
      if (/^\\[0-9xuckpP]/.test(atom)) return literals;
    } else if (quantifier === "") text += character;
    else {
      if (/^\+|^\{[1-9]/.test(quantifier)) text += character;
      finish();
    }
    at = next;
  }
  finish();
  return literals;
}

/** The character that an atom stands for, if it is one. */
function characterOf(atom: string): string | undefined {
  if (/^\\[^A-Za-z0-9]$/.test(atom)) return atom.slice(1);
  if (atom.length > 1 || /[.^$*+?()[\]{}|\\]/.test(atom)) return undefined;
  return atom;
}

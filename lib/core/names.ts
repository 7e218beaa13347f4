/** Which names from outside are accepted. Everything here is pure; callers decide how to refuse. */

const notGits = String.raw`(?![^/]*\.(?:[gG][iI][tT]|[lL][oO][cC][kK])(?:/|$))`;
const part = `${notGits}[A-Za-z0-9][A-Za-z0-9._-]{0,99}`;

/** What `isShortName` takes, as editors are told. */
export const shortNames = new RegExp(`^${part}$`);
/** What `isRepoName` takes. */
export const repoNames = new RegExp(
  `^~?${part}(?:/${part}){0,4}/${notGits}(?:[._](?=[A-Za-z0-9_-])|[A-Za-z0-9])[A-Za-z0-9._-]{0,99}$`,
);

/** A repo's short name, for slave-activate: no path, no option, nothing special to git or the file system. */
export function isShortName(name: string): boolean {
  return shortNames.test(name);
}

/**
 * `owner/name` as a forge sends it; GitLab's subgroups (`group/sub/name`) too. The name itself may begin with a dot
 * or `_` (GitHub's `.github`), the owner with a tilde (a person's own project on Bitbucket Data Center).
 * Where it becomes a file's name its slash must not stay one: `.github` is a hidden file, and `..` is refused here.
 */
export function isRepoName(name: string): boolean {
  return repoNames.test(name);
}

/** A full git object id, SHA-1 or SHA-256, in hex. */
export function isSha(text: string): boolean {
  return /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(text);
}

/** What `isSafeRef` takes, as editors are told. */
export const safeRefs = new RegExp(
  String.raw`^(?![-/@]$|[-/]|[\s\S]*(?:\.\.|@\{|//)|(?:[\s\S]*/)?(?:\.|[^/]*\.lock(?:/|$))|[\s\S]*[./]$)` +
    String.raw`[^\x00-\x20\x7f~^:?*[\\]{1,250}$`,
);

/**
 * Whether git would accept the name of a ref or branch, and would not take it for an option.
 * Rules: git-check-ref-format(1).
 */
export function isSafeRef(ref: string): boolean {
  if (ref === "" || ref === "@" || ref.length > 250 || ref.startsWith("-")) return false;
  if (/[\x00-\x20\x7f~^:?*[\\]|\.\.|@\{|\/\/|\/$|^\/|\.$/.test(ref)) return false;
  return ref.split("/").every((each) => !each.startsWith(".") && !each.endsWith(".lock"));
}

/** The one of `words` that is closest to a mistyped `word`, when it is close enough to be worth a hint. */
export function nearest(word: string, words: Iterable<string>): string | undefined {
  let best: string | undefined;
  // with one letter changed, a word of one letter is any other
  let bestDistance = Math.min(word.length, Math.max(1, Math.floor(word.length / 3)) + 1);
  for (const candidate of words) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Levenshtein's distance, with a swap of two neighbours counted once (optimal string alignment). */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, index) => index)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let cost = Math.min((rows[i - 1]?.[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (rows[i - 1]?.[j - 1] ?? 0) + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, (rows[i - 2]?.[j - 2] ?? 0) + 1);
      }
      row.push(cost);
    }
    rows.push(row);
  }
  return rows[a.length]?.[b.length] ?? 0;
}

/** ` (did you mean "x"?)` or nothing: the end of every message about an unknown word. */
export function didYouMean(word: string, words: Iterable<string>): string {
  const near = nearest(word, words);
  return near === undefined ? "" : ` (did you mean "${near}"?)`;
}

/** A ref as people name it: `refs/heads/main` → `main`, `refs/tags/v1` → `tag v1`. */
export function shortRef(ref: string): string {
  return ref.replace(/^refs\/heads\//, "").replace(/^refs\/tags\//, "tag ");
}

/** A commit as people name it: its first ten digits. */
export function shortSha(sha: string): string {
  return sha.slice(0, 10);
}

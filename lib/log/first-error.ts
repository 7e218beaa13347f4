import { stripVTControlCharacters } from "node:util";

/**
 * The line of a failed stage's output that tells why it failed. Pure: what compilers, test runners, package managers
 * and shells write is known here by its form, and nowhere else.
 */

/** The surest first: a line of an earlier form counts more than one of a later form above it. */
const forms: readonly RegExp[] = [
  // what a compiler's or runner's last word only sums up
  /\bpanicked at\b|: undefined reference to |^TS\d+ \[ERROR\]: /,
  // an error by its name: Node, Python, Java, TypeScript, Rust, gcc
  /\b(?!\d)\w*(?:Error|Exception)(?: \[\w+\])?: \S|\berror TS\d+:|^error(?:\[E\d+\])?: \S|: (?:fatal )?error: \S/,
  /^E {2,}\S|^ ?ERR_PNPM_\w+|^YN\d{4}: .*\berror\b/,
  /^(?:fatal|FATAL ERROR): \S|^npm (?:ERR!|error) (?!code )\S/,
  // by its place in a file: Go, Ruby, Perl; what bundlers and Tcl begin with
  /^\s*[\w./-]+\.\w+:\d+(?::\d+)?:(?: \S|in )|: \S.* \(\w+Error\)$| at \S+ line \d+[.,]/,
  /^(?:could not|can't|cannot) \S/i,
  // a test that failed
  /^\s*(?:not ok \d+|--- FAIL: |FAIL(?:ED)? \S|[✗✖✘●×] \S)|^\s*\d+\) \S|\b[1-9]\d* (?:failing|failed)\b/,
  // what the system refused
  /\b(?:ECONN\w+|ENOENT|EACCES|EADDRINUSE|ENOSPC|ETIMEDOUT|ENOTFOUND)\b|No space left on device/,
  /\b(?:command not found|not found$|unbound variable$|No such file or directory|Permission denied|Segmentation fault)/,
  /(?:^|line \d+: +\d+ )Killed\b/,
  // a linter's row, make's last word
  /^\s*\d+:\d+\s+(?:error\b|✖)|^make(?:\[\d+\])?: \*\*\* /,
  // a word alone: in no path, no name
  /(?<![\w/.-])(?:error|failed|failure|fatal|cannot|exception)(?![\w/.-])/i,
];

/** What only looks like one: also a test that passed, and a line of source that a compiler shows. */
const harmless = new RegExp(
  String.raw`\b(?:0|no) (?:errors?|fail(?:ed|ing|ures?)|problems?)\b|\b(?:errors?|failed|failures?):? 0\b|` +
    String.raw`error-free|nothing failed|\b\w*warning\b|^✖ \d+ problems? |\.\.\. ok\b|` +
    String.raw`^\s*[✔✓√] |^\s*\d+ \| |^# Subtest: |^ok \d+ `,
  "i",
);

/** The number of the line, from 0, that looks most like the reason; -1: none does. */
export function firstError(lines: readonly string[]): number {
  const texts = lines.map((line) => stripVTControlCharacters(line));
  for (const form of forms) {
    const at = texts.findIndex((text) => form.test(text) && !harmless.test(text));
    if (at >= 0) return at;
  }
  return -1;
}

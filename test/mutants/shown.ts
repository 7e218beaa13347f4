// What people see: logs without holes, secrets masked, nothing that acts on a terminal.
import type { Mutation } from "./mutation.ts";

const hostile = ["scripts/hook-server-hostile-builds"];

export const shown: Mutation[] = [
  {
    what: "NO_COLOR is not heeded",
    file: "lib/cli/terminal.ts",
    from: "wanted && !NO_COLOR ? 1 : 0",
    to: "wanted ? 1 : 0",
    tests: ["scripts/downloads-terminal", "scripts/launchfit-list"],
  },
  {
    what: "of two secrets that overlap the end of one is shown",
    file: "lib/core/mask.ts",
    from: "last[1] = Math.max(last[1], end);",
    to: "last[1] = Math.min(last[1], end);",
    tests: ["lib/core/mask"],
  },
  {
    what: "masks are laid in the order of the secrets, not of the text",
    file: "lib/core/mask.ts",
    from: "spans.sort(([a], [b]) => a - b)",
    to: "spans",
    tests: ["lib/core/mask"],
  },
  {
    what: "a secret is shown in base64",
    file: "lib/core/mask.ts",
    from: "if (inner.length >= 6) shapes.push(",
    to: "if (inner.length < 0) shapes.push(",
    tests: ["lib/core/mask"],
  },
  {
    what: "the log of a running run is not masked",
    file: "lib/hook/runs/run-log.ts",
    from: "await send(masked(readLog(path), mask, { growing }), response);",
    to: "const plain = Object.assign((text: string) => text, { spans: () => [] });\n  await send(masked(readLog(path), growing ? plain : mask, { growing }), response);",
    tests: hostile,
  },
  {
    what: "half a secret is shown where a long line of a log is cut",
    file: "lib/hook/runs/run-log.ts",
    from: "end = across?.[0] || cut;",
    to: "end = across?.length === 0 ? 0 : cut;",
    tests: ["lib/hook/runs/run-log"],
  },
  {
    what: "half a secret is shown at the end of a log that grows",
    file: "lib/hook/runs/run-log.ts",
    from: "if (!growing) yield mask(rest + decoder.end());",
    to: "yield mask(rest + decoder.end());",
    tests: hostile,
  },
  {
    what: "a secret stays in a log that has ended",
    file: "lib/hook/runs/run-log.ts",
    from: "if (size === 0) return false;",
    to: "if (size >= 0) return false;",
    tests: ["scripts/hook-server-runs", "scripts/hook-server.test"],
  },
  {
    what: "8-bit escape sequences of others reach the terminal",
    file: "lib/core/clean.ts",
    from: String.raw`suspicious = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u061c`,
    to: String.raw`suspicious = /[\u0000-\u0008\u000a-\u001f\u007f\u061c`,
    tests: ["lib/core/clean"],
  },
  {
    what: "text of others turns the line round",
    file: "lib/core/clean.ts",
    from: String.raw`\u000a-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/;`,
    to: String.raw`\u000a-\u001f\u007f-\u009f\u061c]/;`,
    tests: ["lib/core/clean"],
  },
  {
    what: "a progress bar's last state hides what was printed before",
    file: "lib/core/clean.ts",
    from: 'return states.findLast((state) => withoutEscapes(state).trim() !== "") ?? "";',
    to: 'return states.at(-1) ?? "";',
    tests: ["lib/core/clean"],
  },
  {
    what: "a log that was rotated is written to for ever",
    file: "lib/log/writer.ts",
    from: "if (this.#fd !== undefined && there?.ino === this.#inode) {",
    to: "if (this.#fd !== undefined && there !== null) {",
    tests: ["lib/log/writer"],
  },
  {
    what: "how many lines are missing is forgotten when that cannot be written either",
    file: "lib/log/writer.ts",
    from: "this.#written = 0;\n    this.#pending",
    to: "this.#written = 0;\n    this.#lost = 0;\n    this.#pending",
    tests: ["lib/log/writer"],
  },
  {
    what: "lines are lost: a log is rotated while a build writes to it",
    file: "lib/logs/lock.ts",
    from: 'basename(file) === "logs.txt" && existsSync(build)',
    to: "false",
    tests: ["scripts/logs-rotate"],
  },
];

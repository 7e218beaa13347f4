// build: what people changed in a checkout, and whether the result is that of the commit.
import type { Mutation } from "./mutation.ts";

const git = ["scripts/build-git"];

export const build: Mutation[] = [
  {
    what: "changes of tracked files in the checkout are lost",
    file: "lib/builder/pull.ts",
    from: "if (dirty.length > 0) await stash(git, [],",
    to: "if (dirty.length < 0) await stash(git, [],",
    tests: git,
  },
  {
    what: "commits of the checkout are lost",
    file: "scripts/build.ts",
    from: "if (at !== undefined && at !== to)",
    to: 'if (at === "")',
    tests: git,
  },
  {
    what: "files that git does not know are overwritten",
    file: "lib/builder/pull.ts",
    from: "if (files.length > 0)\n    await stash(",
    to: "if (files.length < 0)\n    await stash(",
    tests: git,
  },
  {
    what: "a commit that is no longer on the remote is replaced by another, silently",
    file: "scripts/build.ts",
    from: "if (to === undefined) throw lostCommit(branch, asked, tip);",
    to: "to ??= tip;",
    tests: git,
  },
  {
    what: "a litpro document that fails counts as built",
    file: "lib/builder/litpro.ts",
    from: 'else if (line.startsWith("error:")) report.failures.push(line);',
    to: "",
    tests: ["lib/builder/litpro.test"],
  },
  {
    what: "a litpro run that ended half way counts as built",
    file: "lib/builder/litpro.ts",
    from: "if (!report.done)",
    to: "if (!report.done && report.saved < 0)",
    tests: ["scripts/build-litpro"],
  },
  {
    what: "an install that broke off counts as done",
    file: "lib/builder/install.ts",
    from: "await rm(record, { force: true });",
    to: "",
    tests: ["scripts/build-install"],
  },
  {
    what: "packages are not installed anew when the lock file changes",
    file: "lib/builder/install.ts",
    from: "...(lock ? [lock] : []),",
    to: "",
    tests: ["scripts/build-install"],
  },
  {
    what: "the stages after one that failed run",
    file: "lib/run/run.ts",
    from: " || this.results.some(isBad);",
    to: ";",
    tests: ["scripts/build.test"],
  },
  {
    what: "--if-changed skips a commit whose build failed",
    file: "scripts/build.ts",
    from: "!force && last?.good)",
    to: "!force && last)",
    tests: ["scripts/build.test", "scripts/build-git"],
  },
];

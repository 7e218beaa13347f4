// build: what people changed in a checkout, and whether the result is that of the commit.
import type { Mutation } from "./mutation.ts";

const git = ["scripts/build-git"];

export const build: Mutation[] = [
  {
    what: "changes of tracked files in the checkout are lost",
    file: "lib/builder/pull.ts",
    from: "if (dirty.length > 0) await keepTrackedChanges(place, dirty, head);",
    to: "",
    tests: git,
  },
  {
    what: "commits of the checkout are lost",
    file: "lib/builder/pull.ts",
    from: "if (head !== undefined && head !== sha)\n    await keepLocalCommits(place, { head, sha, tip, tracking: branch.tracking });",
    to: "",
    tests: git,
  },
  {
    what: "files that git does not know are overwritten",
    file: "lib/builder/pull.ts",
    from: "await keepUntracked(place, sha);",
    to: "",
    tests: git,
  },
  {
    what: "a commit that is no longer on the remote is replaced by another, silently",
    file: "lib/builder/fetch.ts",
    from: "if (sha === undefined)\n    throw new Failure(",
    to: 'if (sha === undefined) return tip;\n  if (sha === "")\n    throw new Failure(',
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
    from: '["package.json", ...settings, ...(lock === undefined ? [] : [lock])];',
    to: '["package.json", ...settings, ...(lock === undefined ? [] : [])];',
    tests: ["scripts/build-install"],
  },
  {
    what: "the stages after one that failed run",
    file: "lib/builder/build.ts",
    from: "if (isBad(result)) return { ...progress, failure: result };",
    to: "",
    tests: ["scripts/build.test"],
  },
  {
    what: "--if-changed skips a commit whose build failed",
    file: "lib/builder/build.ts",
    from: "last?.good === true ? last.sha : undefined;",
    to: "last ? last.sha : undefined;",
    tests: ["scripts/build.test", "scripts/build-git"],
  },
];

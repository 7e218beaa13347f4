// Releases: which are believed, how they are unpacked, and what happens when one does not hold up.
import type { Mutation } from "./mutation.ts";

const attacks = ["scripts/launchfit-attacks"];
const floors = "lib/web-folder/floors.ts";
const writer = ["lib/archive/unpack"];

export const launch: Mutation[] = [
  {
    what: "an older VERSION is taken after a newer one (rollback)",
    file: floors,
    from: "if (offered === undefined || Date.parse(offered) < Date.parse(lowest))",
    to: "if (offered === undefined)",
    tests: ["scripts/launchfit-attacks", "scripts/launchfit-clock"],
  },
  {
    what: "an older archive is taken after a newer one",
    file: floors,
    from: "if (!mayBeOlder && lowest !== undefined && Date.parse(archive.signed) < Date.parse(lowest))",
    to: "if (!mayBeOlder && lowest === name)",
    tests: attacks,
  },
  {
    what: "VERSION.sig may be taken away",
    file: floors,
    from: "if (state.versionSigned)\n      throw",
    to: "if (state.versionSigned === undefined && name === '')\n      throw",
    tests: attacks,
  },
  {
    what: "a VERSION that expired is news (freeze)",
    file: floors,
    from: "Date.parse(expires) < now.getTime())",
    to: "Date.parse(expires) < 0)",
    tests: attacks,
  },
  {
    what: "a version that was accepted before may have other bytes",
    file: floors,
    from: "if (!known || known.sha256 === sha256) return;",
    to: "return;",
    tests: attacks,
  },
  {
    what: "an archive passes under another's name (mix-and-match)",
    file: "lib/web-folder/verify.ts",
    from: "if (signedName !== undefined && signedName !== line.file)",
    to: 'if (signedName === "")',
    tests: attacks,
  },
  {
    what: "keys are changed by whom nobody trusts",
    file: "lib/web-folder/key-set.ts",
    from: "if (!before.some((key) => signedBy.has(key) && !set.revoked.includes(key)))",
    to: "if (before.length === 0)",
    tests: ["lib/web-folder/key-set"],
  },
  {
    what: "a revoked key comes back",
    file: "lib/web-folder/key-set.ts",
    from: "if (back !== undefined) throw refuse(`it brings back",
    to: 'if (back === "") throw refuse(`it brings back',
    tests: ["lib/web-folder/key-set"],
  },
  {
    what: "a signature made with a broken hash is accepted",
    file: "lib/openpgp/verify.ts",
    from: "if (weakHashes[hash]) throw",
    to: "if (weakHashes[-1]) throw",
    tests: ["lib/openpgp"],
  },
  {
    what: "a key that is revoked or past its end signs on",
    file: "lib/openpgp/verify.ts",
    from: 'await this.checkKey(key, owner, packet, date, "is not valid now");',
    to: "",
    tests: ["lib/openpgp", "scripts/launchfit-keys"],
  },
  {
    what: "an archive writes outside of its folder",
    file: "lib/archive/rules.ts",
    from: 'if (parts.includes("..")) throw refuse("leads out of the archive");',
    to: "",
    tests: writer,
  },
  {
    what: "a link in an archive leads out of it",
    file: "lib/archive/rules.ts",
    from: 'if (ups > path.split("/").length - 1) throw',
    to: 'if (ups > 64 * path.split("/").length) throw',
    tests: writer,
  },
  {
    what: "an archive brings a setuid file",
    file: "lib/archive/unpack.ts",
    from: 'if (mode & (isFolder ? 0o4000 : 0o6000)) throw refuse("is setuid or setgid");',
    to: "",
    tests: writer,
  },
  {
    what: "an archive holds one file under two names of one spelling",
    file: "lib/archive/unpack.ts",
    from: "if (other !== undefined)\n      throw new Refused(",
    to: 'if (other === "")\n      throw new Refused(',
    tests: writer,
  },
  {
    what: "a small archive fills the disk",
    file: "lib/archive/tar.ts",
    from: "if (unpacked > limits.ratioFrom && unpacked > packed * limits.ratio)",
    to: "if (unpacked < 0)",
    tests: writer,
  },
  {
    what: "a release that fails stays",
    file: "lib/launch/trial.ts",
    from: "await releases.activate(from);",
    to: "",
    tests: ["scripts/launchfit-undo"],
  },
  {
    what: "a release that failed is tried again and again",
    file: "lib/launch/updater.ts",
    from: "const reason = failedBefore(this.#options.state.value, update);",
    to: "const reason = undefined as string | undefined;",
    tests: ["scripts/launchfit-run"],
  },
  {
    what: "an app that answers with errors counts as healthy",
    file: "lib/launch/health.ts",
    from: "return status >= 200 && status < 400 ? undefined :",
    to: "return status >= 200 && status < 600 ? undefined :",
    tests: ["lib/launch/health"],
  },
  {
    what: "an app that ended as it answered counts as healthy",
    file: "lib/launch/health.ts",
    from: "if (wrong === undefined && ended === undefined) return undefined;",
    to: "if (wrong === undefined) return undefined;",
    tests: ["lib/launch/health"],
  },
];

// Real gpg keys and signatures, in homes of their own.
import { mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import process from "node:process";
import { test } from "uvu";
import { type RunResult, runCommand } from "./run.ts";
import { prepare } from "./prepare.ts";
import { testUnless } from "./skip.ts";

/** Why there can be no gpg here; undefined when there is one. */
export const needsGpg = existsSync("/usr/bin/gpg") ? undefined : "needs gpg (apt install gnupg)";

/** A gpg home for the tests of a file, which are skipped without gpg. Its path is undefined then. */
export function gpgTests(): { gpgTest: typeof test; home: GpgHome } {
  const home = {} as GpgHome;
  prepare(test, async () => {
    if (!needsGpg) Object.assign(home, await gpgHome());
  });
  test.after(() => home.close?.());
  return { gpgTest: testUnless(test, needsGpg) as typeof test, home };
}

export type GpgHome = {
  /** Short, since the agent's socket stands in it. */
  path: string;
  /** Runs gpg; the exit code must be 0 unless `check` is false. */
  gpg: (args: string[], options?: { check?: boolean; at?: string }) => Promise<RunResult>;
  /** Makes a key and returns its fingerprint. `at`: the time that gpg believes it is, as 20260101T000000. */
  key: (
    name: string,
    options?: { algorithm?: string; usage?: string; expires?: string; at?: string },
  ) => Promise<string>;
  /** The public keys, armored. */
  export: (...fingerprints: string[]) => Promise<Buffer>;
  /** Signs a file; the signature's path is returned. */
  sign: (
    file: string,
    fingerprint: string,
    options?: { args?: string[]; at?: string; output?: string },
  ) => Promise<string>;
  close: () => Promise<void>;
};

/** Makes an empty home; close it before the test file ends. */
export async function gpgHome(): Promise<GpgHome> {
  const path = mkdtempSync("/tmp/g-");
  process.on("exit", () => rmSync(path, { recursive: true, force: true }));
  const gpg: GpgHome["gpg"] = (args, { check = true, at } = {}) => {
    const time = at === undefined ? [] : ["--faked-system-time", `${at}!`];
    const argv = ["gpg", "--homedir", path, "--batch", "--yes", "--no-tty", ...time, ...args];
    return runCommand(argv, check ? { expect: 0 } : {});
  };
  return {
    path,
    gpg,
    async key(name, { algorithm = "ed25519", usage = "sign", expires = "never", at } = {}) {
      const { stderr, stdout } = await gpg(
        ["--status-fd", "1", "--passphrase", "", "--quick-gen-key", name, algorithm, usage, expires],
        at === undefined ? {} : { at },
      );
      const fingerprint = /KEY_CREATED \w ([0-9A-F]{40})/.exec(stdout)?.[1];
      if (!fingerprint) throw new Error(`gpg made no key: ${stdout}${stderr}`);
      return fingerprint;
    },
    async export(...fingerprints) {
      const output = `${path}/export.asc`;
      await gpg(["--armor", "--output", output, "--export", ...fingerprints]);
      return await readFile(output);
    },
    async sign(file, fingerprint, { args = [], at, output = `${file}.sig` } = {}) {
      await gpg(
        ["--local-user", fingerprint, ...args, "--output", output, "--detach-sign", "--", file],
        at === undefined ? {} : { at },
      );
      return output;
    },
    async close() {
      await runCommand(["gpgconf", "--homedir", path, "--kill", "all"]);
      rmSync(path, { recursive: true, force: true });
    },
  };
}

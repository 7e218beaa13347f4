// What the tests of `downloads` share: a folder with a manifest, run, and looked at.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type RunOptions, type RunResult, runScript } from "./run.ts";
import { tempDir } from "./tmp.ts";

export type Site = {
  /** The folder with the manifest. */
  dir: string;
  manifest: (...lines: string[]) => void;
  /** Runs `downloads` with fast repetitions. */
  run: (args?: string[], options?: RunOptions) => Promise<RunResult>;
  /** A downloaded file's text; undefined when there is none. */
  read: (path: string) => string | undefined;
  path: (path: string) => string;
  /** All files under downloads/, but not those that downloads keeps for itself. */
  files: () => string[];
  /** Everything under downloads/ as one text, saved.txt without its times. */
  state: () => string;
};

export function makeSite(): Site {
  const dir = tempDir("site-");
  const root = join(dir, "downloads");
  const files = () => walk(root).filter((path) => !["saved.txt", ".lock"].includes(path));
  const path = (name: string) => join(root, name);
  return {
    dir,
    manifest: (...lines) => writeFileSync(join(dir, "manifest.txt"), `${lines.join("\n")}\n`),
    run: (args = [], options = {}) => runScript("downloads", [dir, ...args], options),
    read: (name) => (existsSync(path(name)) ? readFileSync(path(name), "utf8") : undefined),
    path,
    files,
    state() {
      const hashes = files().map((name) => {
        const hash = createHash("sha256")
          .update(readFileSync(path(name)))
          .digest("hex");
        return `${hash} ${name}`;
      });
      const record = readFileSync(path("saved.txt"), "utf8")
        .replace(/^# Saved since .*\n/m, "")
        .replace(/ \d{4}-\d\d-\d\dT[\d:]+Z /g, " TIME ");
      return `${hashes.join("\n")}\n${record}`;
    },
  };
}

function walk(root: string): string[] {
  if (!existsSync(root)) return [];
  return readdirSync(root, { recursive: true })
    .map(String)
    .filter((name) => statSync(join(root, name)).isFile())
    .sort();
}

/** Writes files below `root`, such as the one that a server serves. */
export function writeTree(root: string, files: Record<string, string | Uint8Array>): void {
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), content);
  }
}

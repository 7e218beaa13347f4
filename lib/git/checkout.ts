import { readFileSync, statSync } from "node:fs";
import { appendFile, mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { systemCode } from "../core/errors.ts";
import { readIfThere } from "../files/files.ts";
import { isSha } from "../core/names.ts";

/**
 * A checkout's own files, read without starting git: where its git folder is, what HEAD names
 * (gitrepository-layout(5)). Everything that needs more than that asks git (lib/git/git.ts).
 */
export interface Checkout {
  /** The work tree's top. */
  dir: string;
  /** Its git folder; a worktree's or submodule's lies elsewhere. */
  gitDir: string;
  /** The git folder that all worktrees of the repository share. */
  commonDir: string;
}

/** The checkout whose top is `dir`, or undefined when there is none. */
export async function findCheckout(dir: string): Promise<Checkout | undefined> {
  const top = resolve(dir);
  const dotGit = join(top, ".git");
  const kind = statSync(dotGit, { throwIfNoEntry: false });
  if (!kind) return undefined;
  let gitDir = dotGit;
  if (!kind.isDirectory()) {
    const target = /^gitdir: (.+)\n?$/.exec(readFileSync(dotGit, "utf8"))?.[1];
    if (target === undefined) return undefined;
    gitDir = resolve(top, target);
  }
  const common = (await readIfThere(join(gitDir, "commondir")))?.trim();
  return { dir: top, gitDir, commonDir: common === undefined ? gitDir : resolve(gitDir, common) };
}

/** What HEAD names: a branch, or a commit when it is detached. */
export async function readHead({ gitDir }: Checkout): Promise<{ branch?: string; sha?: string }> {
  const text = readFileSync(join(gitDir, "HEAD"), "utf8").trim();
  const branch = /^ref: refs\/heads\/(.+)$/.exec(text)?.[1];
  return branch === undefined ? { sha: text } : { branch };
}

/** The commit that a full ref names, or undefined when there is none, or when git keeps its refs in another way. */
export async function readRef({ commonDir }: Checkout, ref: string): Promise<string | undefined> {
  const loose = await readIfThere(join(commonDir, ref)).catch(() => undefined);
  if (loose !== undefined) return isSha(loose.trim()) ? loose.trim() : undefined;
  const packed = await readIfThere(join(commonDir, "packed-refs"));
  return packed
    ?.split("\n")
    .find((line) => line.endsWith(` ${ref}`))
    ?.split(" ")[0];
}

/** What .git/config says about remotes and branches. */
export interface Remotes {
  names: string[];
  /** By branch: its remote, and the full name of its branch there. */
  upstream: Map<string, { remote?: string; merge?: string }>;
}

/**
 * Remotes and upstreams from the text of a .git/config (git-config(1)); pure.
 * @returns undefined for a file that only git itself should read: with includes, quotes or escapes in what matters.
 */
export function parseRemotes(text: string): Remotes | undefined {
  const remotes: Remotes = { names: [], upstream: new Map() };
  let branch: string | undefined;
  for (const line of text.split("\n").map((each) => each.trim())) {
    const section = /^\[(\w+)(?: "([^"\\]*)")?\]$/.exec(line);
    if (section) {
      const [, kind = "", name] = section;
      if (/^include/i.test(kind)) return undefined;
      branch = kind.toLowerCase() === "branch" ? name : undefined;
      if (kind.toLowerCase() === "remote" && name !== undefined) remotes.names.push(name);
    } else if (line.startsWith("[")) return undefined;
    const [, key, value = ""] = /^(\w+)\s*=\s*(.*)$/.exec(line) ?? [];
    if (branch === undefined || (key !== "remote" && key !== "merge")) continue;
    if (/["\\#;]/.test(value)) return undefined;
    remotes.upstream.set(branch, { ...remotes.upstream.get(branch), [key]: value });
  }
  return remotes;
}

/** Remotes and upstreams of a checkout, or undefined when git itself has to be asked. */
export async function readRemotes({ commonDir }: Checkout): Promise<Remotes | undefined> {
  const text = await readIfThere(join(commonDir, "config")).catch(() => undefined);
  return text === undefined || /worktreeConfig|refStorage/i.test(text)
    ? undefined
    : parseRemotes(text);
}

/** The folder inside the git folder where the toolkit keeps its state: locks, records, kept changes. */
export function stateFolder({ gitDir }: Checkout): string {
  return join(gitDir, "boatyard");
}

/** Have git overlook files that the toolkit writes into a checkout, in this clone only (.git/info/exclude). */
export async function overlook(
  { commonDir }: Checkout,
  patterns: readonly string[],
): Promise<void> {
  const file = join(commonDir, "info", "exclude");
  const text = (await readIfThere(file)) ?? "";
  const known = new Set(text.split("\n"));
  const missing = patterns.filter((pattern) => !known.has(pattern));
  if (missing.length === 0) return;
  const start = text === "" || text.endsWith("\n") ? "" : "\n";
  try {
    await mkdir(dirname(file), { recursive: true });
    await appendFile(file, `${start}${missing.join("\n")}\n`);
  } catch (error) {
    // a checkout that we may not write to fails elsewhere, with better words
    if (systemCode(error) !== "EACCES" && systemCode(error) !== "EROFS") throw error;
  }
}

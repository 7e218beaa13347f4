import { resolve } from "node:path";
import { parseConfig, type Schema } from "../config/yaml.ts";
import { UsageError } from "../core/errors.ts";
import { places, type RepoEntry } from "./step.ts";

/**
 * hooks.yml: read by the yaml package, and changed as text, because a person's comments stay in it. Pure.
 */

export interface NewEntry {
  repo: string;
  user: string;
  dir: string;
  secretFile: string;
  refs: readonly string[];
  afterwards: readonly string[];
}

/** The template's text without its example repo: what `setup server` begins with. */
export function emptyHooks(template: string): string {
  const at = template.search(/^repos:\s*$/m);
  // the schema is not beside the file that is written
  const head = template.slice(0, at).replace(/^# yaml-language-server:.*\n/m, "");
  return `${head}# Each repo as templates/hooks.yml shows it; setup repo OWNER/NAME adds one.\nrepos: {}\n`;
}

type Tree = Parameters<Schema<unknown>["read"]>[0];
/** Whatever stands there: which keys are right is hook-server's to say. */
const anything: Schema<unknown> = { what: "anything", json: {}, read: plainValue };

function plainValue(tree: Tree): unknown {
  if (tree.kind === "list") return tree.items.map(plainValue);
  if (tree.kind === "map") return Object.fromEntries(tree.entries.map(({ key, value }) => [key, plainValue(value)]));
  return typeof tree.value === "number" ? tree.source : tree.value;
}

/** What hooks.yml says, as far as setup needs it. */
export interface HooksFile {
  repos: RepoEntry[];
  /** All files with secrets, whole paths. */
  secretFiles: string[];
}

/**
 * The repos of a hooks.yml.
 * @throws {UsageError} when it is not YAML.
 */
export async function readHooks(text: string, file: string = places.hooks): Promise<HooksFile> {
  const { value } = await parseConfig(text, file, anything);
  const repos = Object.entries(mapOf(mapOf(value)["repos"])).map(([repo, entry]): RepoEntry => {
    const { user, dir, refs, secret_file } = mapOf(entry);
    return {
      repo,
      user: wordOf(user),
      dir: wordOf(dir),
      refs: refs === undefined ? undefined : wordsOf(refs),
      secretFiles: wordsOf(secret_file).map((each) => resolve(places.config, each)),
    };
  });
  const token = wordsOf(mapOf(mapOf(value)["status"])["token_file"]);
  return {
    repos,
    secretFiles: [
      ...token.map((each) => resolve(places.config, each)),
      ...repos.flatMap(({ secretFiles }) => secretFiles),
    ],
  };
}

function mapOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

function wordOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function wordsOf(value: unknown): string[] {
  return (Array.isArray(value) ? value : [value]).filter((each) => typeof each === "string");
}

/** Whether a ref of hooks.yml, in which `*` stands for anything, names a branch. */
export function namesBranch(ref: string, branch: string): boolean {
  const parts = ref
    .replace(/^refs\/heads\//, "")
    .split("*")
    .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(branch);
}

/** The line at which the entry of a repo begins; -1: there is none. */
function entryAt(lines: readonly string[], repo: string): number {
  const quoted = repo.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
  const key = new RegExp(`^ +["']?${quoted}["']?:(?:\\s|$)`);
  return lines.findIndex((line) => key.test(line));
}

/** Whether the text has an entry for the repo. */
export function hasRepo(text: string, repo: string): boolean {
  return entryAt(text.split("\n"), repo) >= 0;
}

/** The line that repos stand below, with what a person wrote beside it. */
const emptyRepos = /^repos:(?:\s*\{\s*\})?(\s*|\s+#[^]*)$/;

/**
 * The text with the repo right below `repos:`; the same text when it is there.
 * @throws {UsageError} when `repos:` is not written in block style.
 */
export function addRepo(text: string, entry: NewEntry): string {
  if (hasRepo(text, entry.repo)) return text;
  const lines = text.split("\n");
  const at = lines.findIndex((line) => emptyRepos.test(line));
  if (at < 0)
    throw new UsageError(`hooks.yml has no line "repos:" of its own; write it so, or add ${entry.repo} by hand`);
  // what follows tells how far people indent here
  const next = lines.slice(at + 1).find((line) => /^\s*[^\s#]/.test(line));
  const indent = /^( +)/.exec(next ?? "")?.[1] ?? "  ";
  const list = (values: readonly string[]) => `[${values.map((each) => JSON.stringify(each)).join(", ")}]`;
  lines.splice(
    at,
    1,
    (lines[at] ?? "").replace(emptyRepos, "repos:$1"),
    `${indent}${entry.repo}:`,
    ...[
      `user: ${word(entry.user)}`,
      `dir: ${word(entry.dir)}`,
      `secret_file: ${word(entry.secretFile)}`,
      ...(entry.refs.length > 0 ? [`refs: ${list(entry.refs)}`] : []),
      ...(entry.afterwards.length > 0 ? [`on_success: ${list(entry.afterwards)}`] : []),
    ].map((line) => `${indent}${indent}${line}`),
  );
  return lines.join("\n");
}

/** A text as YAML has it: in quotes where it would be another value, such as that of a user called "true". */
function word(text: string): string {
  return /^[\w./-]+$/.test(text) && !/^(?:true|false|null)$/i.test(text) ? text : JSON.stringify(text);
}

/** The text without the repo's entry, which is its line and all that is indented below it; the rest stays as it is. */
export function removeRepo(text: string, repo: string): string {
  const lines = text.split("\n");
  const at = entryAt(lines, repo);
  if (at < 0) return text;
  const depth = (line: string) => /^ */.exec(line)?.[0].length ?? 0;
  const own = depth(lines[at] ?? "");
  let end = at + 1;
  for (let next = end; next < lines.length; next++) {
    const line = lines[next] ?? "";
    if (line.trim() === "") continue;
    if (depth(line) <= own) break;
    end = next + 1;
  }
  lines.splice(at, end - at);
  const repos = lines.findIndex((line) => /^repos:\s*(?:\s#[^]*)?$/.test(line));
  const next = lines.slice(repos + 1).find((line) => /^\s*[^\s#]/.test(line));
  // a key without a value is not a map
  if (repos >= 0 && !next?.startsWith(" ")) lines[repos] = (lines[repos] ?? "").replace(/^repos:/, "repos: {}");
  return lines.join("\n");
}

import { UsageError } from "../core/errors.ts";

/**
 * hooks.yml as text, because a person's comments stay in it. Pure.
 */

export interface RepoEntry {
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
  return `${template.slice(0, at)}# Each repo as templates/hooks.yml shows it; setup repo OWNER/NAME adds one.\nrepos: {}\n`;
}

/** Whether the text has an entry for the repo. */
export function hasRepo(text: string, repo: string): boolean {
  const quoted = repo.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
  return new RegExp(`^ +["']?${quoted}["']?:`, "m").test(text);
}

/** The repos of the text, each with its `user:` if it names one, in block or flow style. */
export function reposOf(text: string): { repo: string; user: string | undefined }[] {
  const repos: { repo: string; user: string | undefined }[] = [];
  for (const line of text.split("\n")) {
    const repo = /^ +["']?([^\s"':#]+\/[^\s"':]+)["']?:(?:\s|$)/.exec(line)?.[1];
    if (repo !== undefined) repos.push({ repo, user: undefined });
    const user = /^\s[^#]*\buser:\s*["']?([^\s"',}#]+)/.exec(line)?.[1];
    const last = repos.at(-1);
    if (user !== undefined && last !== undefined) last.user ??= user;
  }
  return repos;
}

/**
 * The text with the repo right below `repos:`; the same text when it is there.
 * @throws {UsageError} when `repos:` is not written in block style.
 */
export function addRepo(text: string, entry: RepoEntry): string {
  if (hasRepo(text, entry.repo)) return text;
  const lines = text.split("\n");
  const at = lines.findIndex((line) => /^repos:\s*(?:\{\s*\})?\s*(?:#.*)?$/.test(line));
  if (at < 0)
    throw new UsageError(
      `hooks.yml has no line "repos:" of its own; write it so, or add ${entry.repo} by hand`,
    );
  // what follows tells how far people indent here
  const next = lines.slice(at + 1).find((line) => /^\s*[^\s#]/.test(line));
  const indent = /^( +)/.exec(next ?? "")?.[1] ?? "  ";
  const list = (values: readonly string[]) =>
    `[${values.map((each) => JSON.stringify(each)).join(", ")}]`;
  lines.splice(
    at,
    1,
    "repos:",
    `${indent}${entry.repo}:`,
    ...[
      `user: ${entry.user}`,
      `dir: ${entry.dir}`,
      `secret_file: ${entry.secretFile}`,
      ...(entry.refs.length > 0 ? [`refs: ${list(entry.refs)}`] : []),
      ...(entry.afterwards.length > 0 ? [`then: ${list(entry.afterwards)}`] : []),
    ].map((line) => `${indent}${indent}${line}`),
  );
  return lines.join("\n");
}

import { resolve } from "node:path";
import { parseConfig, type Schema } from "../config/yaml.ts";

/** hooks.yml and the files of hooks.d, as far as setup needs them. Pure. */

/** A repo in them. */
export interface RepoEntry {
  repo: string;
  /** The file that names it. */
  file: string;
  user?: string | undefined;
  dir?: string | undefined;
  refs?: readonly string[] | undefined;
  /** Whole paths. */
  secretFiles: readonly string[];
}

/** The template's text without its example repo: what `setup server` begins with. */
export function emptyHooks(template: string): string {
  const at = template.search(/^repos:\s*$/m);
  // the schema is not beside the file that is written
  const head = template.slice(0, at).replace(/^# yaml-language-server:.*\n/m, "");
  return `${head}# Each repo as templates/hooks.yml shows it, here or in a file of its own in hooks.d/, as setup repo
# OWNER/NAME writes one.
repos: {}
`;
}

export interface NewEntry {
  repo: string;
  user: string;
  dir: string;
  secretFile: string;
  refs: readonly string[];
  afterwards: readonly string[];
}

/** The file of hooks.d for a repo. */
export const fileFor = (repo: string): string => `/etc/boatyard/hooks.d/${repo.replaceAll("/", "+")}.yml`;

/** What `setup repo` writes there. JSON is YAML, too. */
export function entryText({ repo, user, dir, secretFile, refs, afterwards }: NewEntry): string {
  const list = (key: string, values: readonly string[]) =>
    values.length === 0 ? "" : `    ${key}: [${values.map((each) => JSON.stringify(each)).join(", ")}]\n`;
  return `# Made by setup repo; templates/hooks.yml of Boatyard shows all that can be set here.
repos:
  ${repo}:
    user: ${JSON.stringify(user)}
    dir: ${JSON.stringify(dir)}
    secret_file: ${JSON.stringify(secretFile)}
${list("refs", refs)}${list("on_success", afterwards)}`;
}

type Tree = Parameters<Schema<unknown>["read"]>[0];
/** Whatever stands there: which keys are right is hook-server's to say. */
const anything: Schema<unknown> = { what: "anything", json: {}, read: plainValue };

function plainValue(tree: Tree): unknown {
  if (tree.kind === "list") return tree.items.map(plainValue);
  if (tree.kind === "map") return Object.fromEntries(tree.entries.map(({ key, value }) => [key, plainValue(value)]));
  return typeof tree.value === "number" ? tree.source : tree.value;
}

/** The repos of such a file. @throws {UsageError} when it is not YAML */
export async function readHooks(text: string, file: string): Promise<RepoEntry[]> {
  const { value } = await parseConfig(text, file, anything);
  // also those of hooks.d start there
  const from = (path: string) => resolve("/etc/boatyard", path);
  return Object.entries(mapOf(mapOf(value)["repos"])).map(([repo, entry]): RepoEntry => {
    const { user, dir, refs, secret_file } = mapOf(entry);
    return {
      ...{ repo, file, user: wordsOf(user)[0], dir: wordsOf(dir)[0] },
      refs: refs === undefined ? undefined : wordsOf(refs),
      secretFiles: wordsOf(secret_file).map(from),
    };
  });
}

function mapOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
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

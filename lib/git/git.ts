import process from "node:process";
import { cleanEnvironment, run, type RunOptions, type RunResult } from "../exec/exec.ts";

/**
 * Every git call of the project. Names and URLs reach git only after `--` (the callers see to it),
 * and git itself is kept from asking, from running other programs, and from odd transports.
 */
export interface GitOptions extends Omit<RunOptions, "env"> {
  /** The work tree or git directory it works in. */
  dir?: string;
  /** Added to git's environment. */
  env?: Record<string, string | undefined>;
  /** Settings for this call: `{ "gc.auto": "0" }`. */
  config?: Record<string, string>;
}

/** The transports that a remote may use (gitprotocol names of git-config(1), protocol.allow). */
export const allowedProtocols = "file:git:http:https:ssh";

/** The environment for git: no prompt of any kind, plain English, few transports. */
export function gitEnvironment(
  extra: Record<string, string | undefined> = {},
): Record<string, string> {
  return cleanEnvironment({
    GIT_TERMINAL_PROMPT: "0",
    GIT_ASKPASS: "true",
    SSH_ASKPASS_REQUIRE: "never",
    GIT_ALLOW_PROTOCOL: allowedProtocols,
    GIT_CONFIG_GLOBAL: process.env.GIT_CONFIG_GLOBAL,
    GIT_CONFIG_NOSYSTEM: process.env.GIT_CONFIG_NOSYSTEM,
    GIT_SSH_COMMAND: process.env.GIT_SSH_COMMAND,
    LC_ALL: "C",
    ...extra,
  });
}

/**
 * Run git.
 * @throws {CommandFailed} when it fails, unless `check` is false.
 */
export function git(
  args: readonly string[],
  { dir, env, config = {}, ...options }: GitOptions = {},
): Promise<RunResult> {
  const settings = Object.entries(config).flatMap(([key, value]) => ["-c", `${key}=${value}`]);
  const where = dir === undefined ? [] : ["-C", dir];
  return run(["git", ...where, ...settings, ...args], { ...options, env: gitEnvironment(env) });
}

/** What git printed, less the last line end. */
export async function gitText(args: readonly string[], options: GitOptions = {}): Promise<string> {
  return (await git(args, options)).stdout.replace(/\n$/, "");
}

/** The heads and tags of a remote: full ref → object id; `peeled` tags (`^{}`) replace the tag object's own id. */
export async function remoteRefs(
  url: string,
  patterns: readonly string[],
  options: GitOptions = {},
): Promise<Map<string, string>> {
  const text = await gitText(["ls-remote", "--", url, ...patterns], options);
  const refs = new Map<string, string>();
  for (const line of text.split("\n")) {
    const [sha, ref] = line.split("\t");
    if (sha && ref) refs.set(ref.replace(/\^\{\}$/, ""), sha);
  }
  return refs;
}

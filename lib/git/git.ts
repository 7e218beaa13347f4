import process from "node:process";
import {
  cleanEnvironment,
  type CommandOptions,
  run,
  type RunOptions,
  type RunResult,
  type Shell,
  shellWith,
} from "../exec/exec.ts";

/** Options of `gitIn`: those of `$`. */
export interface GitOptions extends Omit<CommandOptions, "cwd" | "env"> {
  /** Added to git's environment. */
  env?: Record<string, string | undefined> | undefined;
  /** Settings for these calls: `{ "gc.auto": "0" }`. */
  config?: Readonly<Record<string, string>> | undefined;
}

/**
 * `$` for git in a folder, a work tree or git directory. Every git call of the project goes through it:
 * git is kept from asking, from running other programs, and from odd transports. Options end with `--`
 * before names and URLs that are put in.
 *
 *     const git = gitIn(dir);
 *     await git`git fetch --prune -- ${remote} ${refspec}`;
 */
export function gitIn(dir: string, { env, config = {}, ...options }: GitOptions = {}): Shell {
  const settings = Object.entries(config);
  return shellWith({
    ...options,
    cwd: dir,
    env: gitEnvironment({
      ...env,
      // git-config(1): settings by the environment
      GIT_CONFIG_COUNT: String(settings.length),
      ...Object.fromEntries(
        settings.flatMap(([key, value], at) => [
          [`GIT_CONFIG_KEY_${at}`, key],
          [`GIT_CONFIG_VALUE_${at}`, value],
        ]),
      ),
    }),
  });
}

/** What git printed, less the last line end. */
export async function textOf(output: PromiseLike<{ stdout: string }>): Promise<string> {
  return (await output).stdout.replace(/\n$/, "");
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

/** The former way, until its callers use `gitIn`. */
export interface OldGitOptions extends Omit<RunOptions, "env"> {
  dir?: string;
  env?: Record<string, string | undefined>;
  config?: Record<string, string>;
}

/**
 * Run git.
 * @throws {CommandFailed} when it fails, unless `check` is false.
 */
export function git(
  args: readonly string[],
  { dir, env, config = {}, ...options }: OldGitOptions = {},
): Promise<RunResult> {
  const settings = Object.entries(config).flatMap(([key, value]) => ["-c", `${key}=${value}`]);
  const where = dir === undefined ? [] : ["-C", dir];
  return run(["git", ...where, ...settings, ...args], { ...options, env: gitEnvironment(env) });
}

/** What git printed, less the last line end. */
export async function gitText(
  args: readonly string[],
  options: OldGitOptions = {},
): Promise<string> {
  return (await git(args, options)).stdout.replace(/\n$/, "");
}

import { join } from "node:path";
import process from "node:process";
import { accountVariables, cleanEnvironment, type CommandOptions, type Shell, $ } from "../exec/exec.ts";
import { Failure } from "../core/errors.ts";
import { exists } from "../files/files.ts";

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
  return $({
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

/** What to do when git does not read another user's repository, by its words; undefined: it said something else. */
export function ownerHint(said: string, user: string): string | undefined {
  const [, folder] = /dubious ownership in repository at '([^'\n]+)'/.exec(said) ?? [];
  if (folder === undefined) return undefined;
  const word = /^[\w./-]+$/.test(folder) ? folder : `'${folder}'`;
  const command = `runuser -u ${user} -- git config --global --add safe.directory ${word}`;
  return `it belongs to another user; say that ${user} may read it: ${command}`;
}

/** The transports that a remote may use (gitprotocol names of git-config(1), protocol.allow). */
const allowedProtocols = "file:git:http:https:ssh";

/** The environment for git: no prompt of any kind, plain English, few transports. */
function gitEnvironment(extra: Record<string, string | undefined> = {}): Record<string, string> {
  return cleanEnvironment({
    // the user's own configuration is found by HOME
    ...accountVariables(),
    GIT_TERMINAL_PROMPT: "0",
    GIT_ASKPASS: "true",
    SSH_ASKPASS_REQUIRE: "never",
    GIT_ALLOW_PROTOCOL: allowedProtocols,
    GIT_CONFIG_GLOBAL: process.env.GIT_CONFIG_GLOBAL,
    GIT_CONFIG_NOSYSTEM: process.env.GIT_CONFIG_NOSYSTEM,
    GIT_SSH_COMMAND: process.env.GIT_SSH_COMMAND,
    LC_ALL: "C",
    // where user.email is not set: else git asks for the host's full name, which may take 20 s (git-var(1))
    EMAIL: "boatyard@localhost",
    ...extra,
  });
}

/** A work tree, git in it, and where its lines go. */
export interface WorkTree {
  dir: string;
  git: Shell;
  say: (line: string) => void;
}

/**
 * Bring submodules to the commits that the checkout names.
 * @returns a few words for the report, or undefined where there are none.
 */
export async function updateSubmodules({ dir, git, say }: WorkTree): Promise<string | undefined> {
  if (!(await exists(join(dir, ".gitmodules")))) return undefined;
  // an address that changed in .gitmodules has to be taken over first
  await git`git submodule sync --quiet --recursive`;
  const update = git({ onLine: say, nothrow: true });
  const { ok, message } = await update`git submodule update --init --recursive --force`;
  if (!ok) throw new Failure(`cannot update a submodule: see the lines above (${message})`);
  return "submodules";
}

/**
 * Whether a commit keeps files in Git LFS.
 * @throws {Failure} when it does, and git-lfs is not installed: the build would work on pointers.
 */
export async function usesLfs({ git }: WorkTree, sha: string): Promise<boolean> {
  const paths = [".gitattributes", ":(glob)**/.gitattributes"];
  const quiet = git({ nothrow: true });
  if (!(await quiet`git grep --quiet -I -E filter=lfs ${sha} -- ${paths}`).ok) return false;
  if ((await quiet`git lfs version`).ok) return true;
  throw new Failure(
    "the repository keeps files in Git LFS, but git-lfs is not installed; run: apt-get install git-lfs",
  );
}

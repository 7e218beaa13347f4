import process from "node:process";
import { UsageError } from "../core/errors.ts";
import { CommandFailed } from "../exec/exec.ts";
import { git, type OldGitOptions } from "../git/git.ts";
import { isSha } from "../core/names.ts";
import { readSecretFile } from "../config/secrets.ts";
import type { RepoSettings } from "./settings.ts";

/** Where a repo comes from: its URL by an allow-list, and how git may speak to it. */

/** A remote, and what git needs to reach it. */
export interface Remote {
  url: string;
  options: OldGitOptions;
}

/**
 * The remote of a repo. Key and token reach git through its environment, never its arguments.
 * @throws {UsageError} when a key or token cannot be read
 */
export async function remoteOf(
  repo: string,
  settings: Pick<RepoSettings, "base" | "keyFile" | "tokenFile" | "tokenUser" | "timeout">,
  shared: { signal?: AbortSignal | undefined; cookie: string },
): Promise<Remote> {
  const url = `${settings.base}/${repo}.git`;
  const scheme = url.slice(0, url.indexOf(":"));
  const env: Record<string, string | undefined> = {
    ...isolation,
    // the one transport that the base names; a redirect to another is refused
    GIT_ALLOW_PROTOCOL: scheme,
    GIT_HTTP_LOW_SPEED_LIMIT: "1",
    GIT_HTTP_LOW_SPEED_TIME: "60",
  };
  const ssh = [process.env["GIT_SSH_COMMAND"] ?? "ssh", "-o", "BatchMode=yes"];
  ssh.push("-o", "ConnectTimeout=10", "-o", "StrictHostKeyChecking=yes");
  if (settings.keyFile !== undefined) {
    // ssh reads it itself, with rules of its own on who else may read it
    ssh.push("-i", shellWord(settings.keyFile), "-o", "IdentitiesOnly=yes");
  }
  if (scheme === "ssh") env["GIT_SSH_COMMAND"] = ssh.join(" ");
  if (settings.tokenFile !== undefined) {
    if (scheme !== "https" && scheme !== "http") {
      throw new UsageError(
        `token_file goes with an https:// base, not with ${scheme}://; see key_file`,
      );
    }
    const origin = new URL(url).origin;
    // asked for only by a 401 of this very server: a redirect elsewhere does not get it
    Object.assign(env, {
      GIT_CONFIG_COUNT: "1",
      GIT_CONFIG_KEY_0: `credential.${origin}.helper`,
      GIT_CONFIG_VALUE_0: `!f() { test "$1" = get && printf 'username=%s\\npassword=%s\\n' "$BOATYARD_TOKEN_USER" "$BOATYARD_TOKEN"; }; f`,
      BOATYARD_TOKEN_USER: settings.tokenUser,
      BOATYARD_TOKEN: await readSecretFile(settings.tokenFile),
    });
  }
  return {
    url,
    options: {
      env,
      timeout: settings.timeout,
      ...(shared.signal ? { signal: shared.signal } : {}),
      cookie: shared.cookie,
    },
  };
}

/** git's environment without anybody's configuration, attributes or hooks. */
export const isolation: Record<string, string> = {
  GIT_CONFIG_NOSYSTEM: "1",
  GIT_CONFIG_GLOBAL: "/dev/null",
  GIT_ATTR_NOSYSTEM: "1",
  GIT_TERMINAL_PROMPT: "0",
  GIT_LFS_SKIP_SMUDGE: "1",
};

function shellWord(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** What the remote has for a branch, a tag, or its default branch. */
export interface Tip {
  sha: string;
  /** Undefined for a tag: then the clone's HEAD is detached, as git's own would be. */
  branch: string | undefined;
}

/**
 * Ask the remote for its tip.
 * @throws {CommandFailed} when it cannot be reached
 * @throws {RemoteLacks} when the branch is not there, or the repo is empty
 */
export async function askTip(remote: Remote, wanted: string | undefined): Promise<Tip> {
  const patterns =
    wanted === undefined
      ? ["HEAD"]
      : [`refs/heads/${wanted}`, `refs/tags/${wanted}`, `refs/tags/${wanted}^{}`];
  const { stdout } = await git(["ls-remote", "--symref", "--", remote.url, ...patterns], {
    ...remote.options,
    config: { ...remote.options.config, ...quickQuestion(remote.url) },
  });
  const tip = readTip(stdout, wanted);
  if (tip) return tip;
  throw new RemoteLacks(
    wanted === undefined
      ? "the repo is empty, or its HEAD names no branch; push something to it"
      : `the remote has no branch or tag "${wanted}"; name another`,
  );
}

/**
 * Over git:// (a bare TCP connection) version 2 of the protocol asks in many small pieces, which the kernels hold
 * back for each other (Nagle's algorithm and delayed acknowledgements): 40 ms of nothing. With version 1 the server
 * says all its refs unasked, which also spares a journey. https and ssh have no such wait, and keep version 2.
 */
function quickQuestion(url: string): Record<string, string> {
  return url.startsWith("git:") ? { "protocol.version": "1" } : {};
}

/** The remote was reached, and does not have it. */
export class RemoteLacks extends Error {
  override name = "RemoteLacks";
}

/** Pure: the tip in the output of `git ls-remote --symref`. */
export function readTip(text: string, wanted: string | undefined): Tip | undefined {
  const refs = new Map<string, string>();
  let head: string | undefined;
  for (const line of text.split("\n")) {
    const [left = "", ref = ""] = line.split("\t");
    if (left.startsWith("ref: ")) head = left.slice(5);
    else if (isSha(left)) refs.set(ref, left);
  }
  if (wanted === undefined) {
    const sha = refs.get("HEAD");
    return sha === undefined ? undefined : { sha, branch: head?.replace(/^refs\/heads\//, "") };
  }
  const branch = refs.get(`refs/heads/${wanted}`);
  if (branch !== undefined) return { sha: branch, branch: wanted };
  const tag = refs.get(`refs/tags/${wanted}^{}`) ?? refs.get(`refs/tags/${wanted}`);
  return tag === undefined ? undefined : { sha: tag, branch: undefined };
}

/** git's words about a remote that could not be used, shorter and plainer. */
export function plainWords(error: unknown): string {
  if (!(error instanceof CommandFailed))
    return error instanceof Error ? error.message : String(error);
  if (error.result.timedOut) return "the git server did not answer in time";
  const lines = error.result.stderr.split("\n").map((line) => line.trim());
  const telling = lines.filter((line) =>
    /^(?:fatal|error|remote|ssh|Host key|Permission)/i.test(line),
  );
  const words = (telling.length > 0 ? telling : lines.filter((line) => line !== "")).slice(0, 2);
  return words.length === 0
    ? error.message
    : words
        .join("; ")
        .replace(/^(?:fatal|error): /i, "")
        .slice(0, 400);
}

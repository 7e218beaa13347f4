import { access, constants, statfs } from "node:fs/promises";
import process from "node:process";
import { readSecretFile } from "../config/secrets.ts";
import { cleanLine } from "../core/clean.ts";
import { Failure, messageOf, systemCode, UsageError } from "../core/errors.ts";
import { isSafeRef, isSha } from "../core/names.ts";
import { currentUser } from "../exec/users.ts";
import { ProcessOutput, timedOut } from "../exec/exec.ts";
import { gitIn, type GitOptions, ownerHint } from "../git/git.ts";
import { checkBase, type RepoSettings } from "./settings.ts";

/** Where repos come from, and how git may speak to it. */

/** A remote, and how git may speak to it. */
export interface Remote {
  url: string;
  options: GitOptions;
}

/** What all processes of one update share: what ends them, and their mark. */
export type Shared = Pick<GitOptions, "signal" | "cookie">;

/** @throws {UsageError} where nobody has said where repos come from */
export function needBase(base: string | undefined, where: string): string {
  if (base !== undefined) return checkBase(base);
  throw new UsageError(`where repos come from is not known; give --base URL, such as https://github.com/me/, ${where}`);
}

/** git's environment without anybody's configuration, attributes or hooks. */
export const isolation: Record<string, string> = {
  GIT_CONFIG_NOSYSTEM: "1",
  GIT_CONFIG_GLOBAL: "/dev/null",
  GIT_ATTR_NOSYSTEM: "1",
  GIT_LFS_SKIP_SMUDGE: "1",
};

/**
 * The remote of a repo. Key and token reach git through its environment, never its arguments.
 * @throws {UsageError} when there is no base, or a key or token cannot be read
 */
export async function remoteOf(repo: string, settings: RepoSettings, shared: Shared): Promise<Remote> {
  const url = `${needBase(settings.base, "or write base: into slave.yml")}/${repo}.git`;
  const scheme = url.slice(0, url.indexOf(":"));
  const env: Record<string, string | undefined> = {
    ...isolation,
    // the one transport that the base names; a redirect to another is refused
    GIT_ALLOW_PROTOCOL: scheme,
    GIT_HTTP_LOW_SPEED_LIMIT: "1",
    GIT_HTTP_LOW_SPEED_TIME: "60",
  };
  const config: Record<string, string> = {};
  // whose repositories it may read, git takes from the account's own file only
  if (scheme === "file") env["GIT_CONFIG_GLOBAL"] = process.env["GIT_CONFIG_GLOBAL"];
  if (scheme === "ssh") env["GIT_SSH_COMMAND"] = await sshCommand(settings.keyFile);
  if (settings.tokenFile !== undefined) {
    if (scheme !== "https" && scheme !== "http") {
      throw new UsageError(`token_file goes with an https:// base, not with ${scheme}://; see key_file`);
    }
    // asked for only by a 401 of this very server: a redirect elsewhere does not get it
    config[`credential.${new URL(url).origin}.helper`] =
      `!f() { test "$1" = get && printf 'username=%s\\npassword=%s\\n' "$BOATYARD_TOKEN_USER" "$BOATYARD_TOKEN"; }; f`;
    env["BOATYARD_TOKEN_USER"] = settings.tokenUser;
    env["BOATYARD_TOKEN"] = await readSecretFile(settings.tokenFile);
  }
  return { url, options: { ...shared, env, config, timeout: settings.timeout } };
}

async function sshCommand(keyFile: string | undefined): Promise<string> {
  const options = ["BatchMode=yes", "ConnectTimeout=10", "StrictHostKeyChecking=yes"];
  const words = [process.env["GIT_SSH_COMMAND"] ?? "ssh", ...options.map((each) => `-o ${each}`)];
  if (keyFile !== undefined) {
    await access(keyFile, constants.R_OK).catch((error: unknown) => {
      const why = systemCode(error) ?? messageOf(error);
      throw new UsageError(`key_file: ${keyFile} cannot be read: ${why}; make it with ssh-keygen`);
    });
    // ssh reads it itself, with rules of its own on who else may read it; git gives the command to a shell
    words.push(`-i '${keyFile.replaceAll("'", `'\\''`)}'`, "-o IdentitiesOnly=yes");
  }
  return words.join(" ");
}

/** What the remote has for a branch, a tag, or its default branch. */
export interface Tip {
  sha: string;
  /** Undefined for a tag: then the clone's HEAD is detached, as git's own would be. */
  branch: string | undefined;
}

/**
 * Ask the remote for its tip.
 * @throws {ProcessOutput} when it cannot be reached
 * @throws {RemoteLacks} when the branch is not there, or the repo is empty
 */
export async function askTip({ url, options }: Remote, wanted: string | undefined): Promise<Tip> {
  const git = gitIn("/", options);
  const patterns =
    wanted === undefined ? ["HEAD"] : [`refs/heads/${wanted}`, `refs/tags/${wanted}`, `refs/tags/${wanted}^{}`];
  const { stdout } = await git`git ls-remote --symref -- ${url} ${patterns}`;
  const tip = readTip(stdout, wanted);
  if (tip) return tip;
  throw new RemoteLacks(
    wanted === undefined
      ? "the repo is empty, or its HEAD does not name a branch; push something to it"
      : `the remote has no branch or tag "${wanted}"; name another`,
  );
}

/** The remote was reached, and does not have it. */
export class RemoteLacks extends Failure {
  override name = "RemoteLacks";
}

/** Pure: the tip in the output of `git ls-remote --symref`. */
export function readTip(text: string, wanted: string | undefined): Tip | undefined {
  const refs = new Map<string, string>();
  let head = "";
  for (const line of text.split("\n")) {
    const [left = "", ref = ""] = line.split("\t");
    if (left.startsWith("ref: ")) head = left.slice(5);
    else if (isSha(left)) refs.set(ref, left);
  }
  if (wanted === undefined) {
    const sha = refs.get("HEAD");
    const branch = /^refs\/heads\/(.+)$/.exec(head)?.[1];
    if (sha === undefined) return undefined;
    return { sha, branch: branch && isSafeRef(branch) ? branch : undefined };
  }
  const branch = refs.get(`refs/heads/${wanted}`);
  if (branch !== undefined) return { sha: branch, branch: wanted };
  const tag = refs.get(`refs/tags/${wanted}^{}`) ?? refs.get(`refs/tags/${wanted}`);
  return tag === undefined ? undefined : { sha: tag, branch: undefined };
}

/** What git said about a remote that could not be used, shorter and plainer; other errors' messages. */
export function plainWords(error: unknown): string {
  if (!(error instanceof ProcessOutput)) return messageOf(error);
  if (timedOut(error)) return "the git server did not answer in time";
  const hint = ownerHint(error.stderr, currentUser().name);
  const lines = error.stderr.split("\n").map((line) => line.trim());
  const telling = lines.filter((line) => /^(?:fatal|error|remote|ssh|Host key|Permission)/i.test(line));
  const words = (telling.length > 0 ? telling : lines.filter((line) => line !== ""))
    .map((line) => line.replace(/^(?:fatal|error): |\.$/gi, ""))
    // what git adds to every reason
    .filter((line, at) => at === 0 || line !== "Could not read from remote repository")
    .slice(0, 2);
  if (words.length === 0) return error.message;
  return cleanLine(hint === undefined ? words.join("; ").slice(0, 400) : `${words[0]}; ${hint}`);
}

/** There is no room on the disk: a second attempt, which needs more, is not made. */
export class FullDisk extends Failure {
  override name = "FullDisk";
  constructor(why = "the disk is full") {
    super(why);
  }
}

/** Less free space than this, in bytes, is none: git may end by a signal then, and say nothing. */
const leastRoom = 1024 * 1024;

/** What failed for want of room as a FullDisk, by its words or by the room left in `folder`; else as it is. */
export async function toFullDisk(error: unknown, folder: string): Promise<unknown> {
  if (["ENOSPC", "EDQUOT"].includes(systemCode(error) ?? "")) return new FullDisk();
  if (!(error instanceof ProcessOutput)) return error;
  if (/No space left on device|Disk quota exceeded/i.test(error.stderr)) return new FullDisk();
  const room = await statfs(folder).catch(() => undefined);
  if (room && room.bavail * room.bsize < leastRoom) return new FullDisk();
  // git tells no reason, and removes the file: there is room again
  if (/unable to write (?:file|new index file)/i.test(error.stderr))
    return new FullDisk("git cannot write a file: the disk is full, or it fails");
  return error;
}

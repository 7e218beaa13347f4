/**
 * The four ways in which a script can fail, each with its exit code (and what Deno refuses, 2).
 * A message is `what is wrong; what to do`, with `file:line:` in front where there is one.
 * Anything else that is thrown is a bug and shows its stack.
 */

/** The work was tried and failed: exit 1. */
export class Failure extends Error {
  override name = "Failure";
}

/** A wrong command line or configuration: exit 2, and nothing was touched. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** Another process holds the lock: exit 3. */
export class Busy extends Error {
  override name = "Busy";
}

/** Refused for safety (signature, downgrade, unsafe path or name): exit 4. */
export class Refused extends Error {
  override name = "Refused";
}

/** The exit code that an expected error stands for; undefined for a bug. */
export function exitCodeOf(error: unknown): 1 | 2 | 3 | 4 | undefined {
  // a command that failed (zx's ProcessOutput) carries its Failure as `cause`
  if (error instanceof Failure || (error as Error | null)?.cause instanceof Failure) return 1;
  if (error instanceof UsageError || isPermissionDenied(error)) return 2;
  if (error instanceof Busy) return 3;
  if (error instanceof Refused) return 4;
  return undefined;
}

/**
 * Whether Deno was started without a permission that is needed. Its message names the flag:
 * `Requires read access to "/srv/site", run again with the --allow-read flag`.
 */
export function isPermissionDenied(error: unknown): boolean {
  return (error as Error | null)?.name === "NotCapable";
}

/**
 * For `.catch(ifMissing)`, where a file that cannot be looked at counts as absent: undefined.
 * A permission that Deno was not given is thrown: it says nothing about the file.
 */
export function ifMissing(error: unknown): undefined {
  if (isPermissionDenied(error)) throw error;
  return undefined;
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a system error (`ENOENT`, `ENOSPC` …), if it has one. */
export function systemCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}

const refusals: Record<string, string> = {
  EACCES: "permission denied; type the command as its owner, or as root",
  EPERM: "this user may not do that; type the command as its owner, or as root",
  ENOTDIR: "a part of this path is a file, not a folder; name another",
  EISDIR: "it is a folder, not a file; name another",
  ELOOP: "its links lead round in a circle; correct them",
  ENAMETOOLONG: "the name is too long; choose a shorter one",
  EROFS: "the file system is read-only; mount it for writing, or name another place",
  ENOSPC: "no space left on the disk; make room",
  EDQUOT: "the disk quota is used up; make room",
  EMFILE: "too many files are open; raise the limit (ulimit -n)",
  ENFILE: "too many files are open on this machine",
  EIO: "the disk does not answer as it should; see dmesg",
};

/** What the file system refuses, whatever a script did, in words: `PATH: what is wrong; what to do`. */
export function systemRefusal(error: unknown): string | undefined {
  const words = refusals[systemCode(error) ?? ""];
  const { path } = (error ?? {}) as { path?: unknown };
  return words !== undefined && typeof path === "string" ? `${path}: ${words}` : words;
}

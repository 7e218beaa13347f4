import process from "node:process";
import { Failure } from "../../core/errors.ts";
import { isSafeRef, isSha } from "../../core/names.ts";
import { askTip, plainWords } from "../repo/remote.ts";
import { checkBase, defaultBase } from "../settings.ts";

/** The commit that a run is about, fixed before any slave is asked: no slave decides it for the others. */
export interface Pin {
  sha: string;
  /** None: a tag, or a commit that was named by hand. */
  branch?: string | undefined;
}

export interface PinOptions {
  sha: string | undefined;
  branch: string | undefined;
  base: string | undefined;
}

/**
 * `--sha`, else the push that hook-server runs us for, else what the remote has now.
 * @throws {Failure} when the remote cannot tell
 */
export async function pinCommit(
  repo: string,
  { sha, branch, base = defaultBase }: PinOptions,
  signal: AbortSignal,
): Promise<Pin> {
  if (sha !== undefined) return { sha, branch };
  const pushed = pushedCommit(repo, process.env);
  if (pushed && (branch === undefined || branch === pushed.branch)) return pushed;
  const url = `${checkBase(base)}/${repo}.git`;
  try {
    return await askTip({ url, options: { signal, timeout: 60_000 } }, branch);
  } catch (error) {
    throw new Failure(
      `the commit of ${repo} is not known: ${plainWords(error)} (asked ${url}); name the right --base, or the commit by --sha`,
    );
  }
}

/** Pure: the commit of the push that hook-server runs a `then:` command for, when it is one of this repo. */
export function pushedCommit(repo: string, env: NodeJS.ProcessEnv): Pin | undefined {
  const { HOOK_REPO = "", HOOK_SHA = "", HOOK_REF = "" } = env;
  if (HOOK_REPO.split("/").at(-1) !== repo || !isSha(HOOK_SHA) || /^0+$/.test(HOOK_SHA))
    return undefined;
  const branch = /^refs\/heads\/(.+)$/.exec(HOOK_REF)?.[1];
  return { sha: HOOK_SHA, branch: branch !== undefined && isSafeRef(branch) ? branch : undefined };
}

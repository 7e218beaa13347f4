import { UsageError } from "../../core/errors.ts";
import { closeFrom, closingShell } from "../../exec/descriptors.ts";
import { printLimitsMet } from "../../exec/scope.ts";
import { findScript, withRuntime } from "../../exec/scripts.ts";
import { stageFileVariable } from "../../run/stage-file.ts";
import { asUser, currentUser, userEnvironment } from "../../exec/users.ts";
import type { Run } from "../../run-store/run-store.ts";
import type { RepoConfig } from "../config/config.ts";
import { isApart } from "../payload/payload.ts";

/** What a run executes: its argv and its environment. Planned here, started in `/` by run-process.ts. */
export interface Command {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** The argv prefix of the script that a repo's config names for a kind of run. */
export async function scriptOf(repo: Pick<RepoConfig, "on">, kind: "push" | "release"): Promise<string[]> {
  const name = repo.on[kind];
  if (name === false) throw new UsageError(`nothing runs on ${kind} any more`);
  return name.startsWith("/") ? withRuntime(name) : await findScript(name);
}

/** The script of a run with the checkout and what was pushed or released, as the repo's user. Pure. */
export function scriptCommand(
  script: readonly string[],
  repo: Pick<RepoConfig, "dir" | "user" | "refs" | "on" | "signers" | "allowBack">,
  run: Run,
  { payloadFile, stageFile }: { payloadFile: string; stageFile: string },
): Command & { readonly script: readonly string[] } {
  const what = run.kind === "release" ? ["--tag", run.release?.tag ?? ""] : ["--ref", run.ref];
  const sha = run.sha === undefined ? [] : ["--sha", run.sha];
  const argv = [...script, repo.dir, ...what, ...sha];
  const env = {
    ...userEnvironment(repo.user),
    ...runVariables(run, repo.dir, payloadFile),
    ...(isApart(repo, run) ? { HOOK_APART: "1" } : {}),
    ...(repo.signers === undefined ? {} : { HOOK_SIGNERS: repo.signers }),
    ...(repo.allowBack ? { HOOK_ALLOW_BACK: "1" } : {}),
    [stageFileVariable]: stageFile,
  };
  return { argv: asUser(inFolder(repo.dir, argv), repo.user), env, script: argv };
}

/**
 * A command in a folder, or in `/` when that is not there. It is entered by the user who runs the command: root could
 * be led by a link into a folder that is closed to that user, and would open it to the command.
 */
function inFolder(dir: string, argv: readonly string[]): string[] {
  return ["/bin/sh", "-c", 'cd -- "$0" 2>/dev/null || cd /; exec "$@"', dir, ...argv];
}

/**
 * A command of a repo that comes after its script (`on_success`, `on_failure`, `on_change`), as our own user. Pure.
 * @param more RUN_*: what became of the run.
 */
export function afterCommand(
  text: string,
  repo: Pick<RepoConfig, "dir" | "user">,
  run: Run,
  { payloadFile, more }: { payloadFile: string; more: Readonly<Record<string, string>> },
): Command {
  const own = userEnvironment(currentUser());
  const env = { ...own, ...runVariables(run, repo.dir, payloadFile), ...more };
  return { argv: inFolder(thenFolder(repo), ["/bin/sh", "-c", text]), env };
}

/**
 * Where such commands run: in its checkout only when that is the server's user's own. What another user can
 * write must not be looked for by root in its current folder.
 */
export function thenFolder({ dir, user }: Pick<RepoConfig, "dir" | "user">): string {
  return user.uid === currentUser().uid ? dir : "/";
}

/** HOOK_* and RELEASE_* (design, section 4). Pure. */
function runVariables(run: Run, dir: string, payloadFile: string): Record<string, string> {
  const { release } = run;
  return {
    HOOK_EVENT: run.event,
    HOOK_REPO: run.repo,
    HOOK_DIR: dir,
    HOOK_REF: run.ref,
    HOOK_SHA: run.sha ?? "",
    HOOK_DELIVERY: run.delivery ?? "",
    HOOK_RUN: run.id,
    ...(run.rerun?.from === undefined ? {} : { HOOK_FROM: run.rerun.from }),
    HOOK_PAYLOAD: payloadFile,
    ...(run.fence === undefined ? {} : { HOOK_FENCE: String(run.fence) }),
    ...(release
      ? {
          RELEASE_TAG: release.tag,
          RELEASE_NAME: release.name,
          RELEASE_SHA: run.sha ?? "",
          RELEASE_URL: release.url,
          RELEASE_PRERELEASE: String(release.prerelease),
        }
      : {}),
  };
}

/**
 * A shell that becomes the command, without the server's descriptors. Pure.
 */
export function secluded(argv: readonly string[]): string[] {
  return [closingShell, "-c", `${closeFrom(3)}; exec "$@"`, closingShell, ...argv];
}

/**
 * A shell around a command, which leaves its exit code in a file, and what of its limits its scope met: the server may
 * be gone when the command ends, and the next one wants to know. It runs as the server's user, so that the command
 * cannot write that file itself. The server's descriptors are not the command's, and are closed. Pure.
 */
export function supervised(
  argv: readonly string[],
  { exitFile, scope }: { exitFile: string; scope?: string | undefined },
): string[] {
  const said = scope === undefined ? "echo $code" : `{ echo $code; ${printLimitsMet} 2>/dev/null; }`;
  const text = `${closeFrom(3)}; umask 022; unset INVOCATION_ID; "$@"; code=$?; umask 077; ${said} >"$0"; exit $code`;
  return [closingShell, "-c", text, exitFile, ...argv];
}

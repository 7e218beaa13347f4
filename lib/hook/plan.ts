import { type User, userEnvironment } from "../exec/as-user.ts";
import { findScript, withRuntime } from "../exec/scripts.ts";
import type { RepoConfig } from "./config.ts";
import type { RunRecord } from "./records.ts";

/** The argv prefix of the script that a repo's config names for a kind of run. */
export async function scriptOf(
  repo: Pick<RepoConfig, "on">,
  kind: "push" | "release",
): Promise<string[]> {
  const name = repo.on[kind];
  if (name === false) throw new Error(`nothing runs on ${kind} any more`);
  return name.startsWith("/") ? withRuntime(name) : await findScript(name);
}

/** The argv of a run: the script, the checkout, and what was pushed or released. Pure. */
export function planArgv(
  script: readonly string[],
  dir: string,
  run: Pick<RunRecord, "kind" | "ref" | "sha" | "release">,
): string[] {
  const what = run.kind === "release" ? ["--tag", run.release?.tag ?? ""] : ["--ref", run.ref];
  return [...script, dir, ...what, ...(run.sha === undefined ? [] : ["--sha", run.sha])];
}

/** The whole environment of a run (design, section 4): what a login sets, HOOK_* and RELEASE_*. Pure. */
export function planEnvironment(
  user: User,
  run: RunRecord,
  payloadFile: string,
): Record<string, string> {
  const release = run.release;
  return {
    ...userEnvironment(user),
    HOOK_EVENT: run.event,
    HOOK_REPO: run.repo,
    HOOK_REF: run.ref,
    HOOK_SHA: run.sha ?? "",
    HOOK_DELIVERY: run.delivery ?? "",
    HOOK_RUN: run.id,
    HOOK_PAYLOAD: payloadFile,
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

// every shell can name descriptors up to 9: systemd hands its sockets over from 3 on
const closeFew = "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-";
const closeAll =
  'for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -gt 2 ] 2>/dev/null && eval "exec $fd<&-"; done';

/**
 * A shell around a run that leaves its exit code in a file: the server may be gone when the run ends, and the
 * next one wants to know. It runs as the server's user, so that the run cannot write that file itself.
 *
 * The server's descriptors are not the run's, and are closed. `bash` is for Deno, which lets its children
 * inherit Unix sockets (the one that steers the server) and copies of the log at any number: only bash can close those.
 */
export function withExitFile(
  argv: readonly string[],
  exitFile: string,
  { bash = false }: { bash?: boolean } = {},
): string[] {
  return [
    bash ? "/bin/bash" : "/bin/sh",
    "-c",
    `${bash ? closeAll : closeFew}; umask 022; "$@"; code=$?; echo $code >"$0"; exit $code`,
    exitFile,
    ...argv,
  ];
}

import { exitCodeOf, Failure, messageOf, UsageError } from "../core/errors.ts";
import { findUpdate } from "./find-update.ts";
import { addRelease, recordDone } from "./install.ts";
import type { AppSettings } from "./config.ts";
import type { Releases } from "./releases.ts";
import { type InstallOptions, openSession } from "./session.ts";
import { ReleaseFailed, runHook } from "./hooks.ts";
import type { Found } from "./next.ts";
import { failedBefore, type LauncherState } from "./state.ts";

export interface LookOptions {
  releases: Releases;
  memory: () => LauncherState;
  install: InstallOptions;
  /** false: there is no app, and only the hooks of a release are run. */
  toRun: boolean;
  log: (line: string) => void;
  signal: AbortSignal;
}

/**
 * What is done beside the running app: ask the web folder, fetch and verify a new version into releases/, run its first
 * hooks. Whatever fails here, the app has not noticed.
 */
export async function look({ releases, memory, install, toRun, log, signal }: LookOptions): Promise<Found> {
  let offered: LauncherState["offered"];
  let to: string | undefined;
  try {
    const before = (await releases.current()) ?? "nothing";
    const config = await releases.config();
    const session = await openSession(releases.deploy, config, "launchfit check", install);
    try {
      // that VERSION is as it was tells enough only while the version it names is current
      const update = await findUpdate(session, { conditional: memory().offered?.version === before });
      const { kind, version, sha256 } = update;
      offered = kind === "unchanged" ? memory().offered : { version, sha256 };
      if (kind === "current") await recordDone(session, update);
      if (kind !== "new") return { kind: "nothing", version: before, result: "up to date", offered };
      const reason = failedBefore(memory(), update);
      const result = `${version} is not tried again: ${reason}`;
      if (reason !== undefined) return { kind: "nothing", version: before, result, offered };
      to = version;
      log(`fetching ${version}`);
      await addRelease(session, update);
    } finally {
      // others need not wait for the hooks and the app
      session.close();
    }
    const { overlap } = await prepareChange(releases, before, to, { toRun, log, signal });
    const now = await releases.current();
    return {
      kind: "ready",
      to,
      renamed: before === to ? now : undefined,
      overlap,
      sha256: await sha256Of(releases, to),
      offered,
    };
  } catch (error) {
    const failed = { kind: "failed", reason: messageOf(error), code: exitCodeOf(error) ?? 1, offered } as const;
    if (to === undefined) return failed;
    const isRelease = error instanceof ReleaseFailed;
    return { ...failed, to, isRelease, sha256: isRelease ? await releases.sha256Of(to) : undefined };
  }
}

/** What a version does before it takes the place of another: nothing is touched for one that could not be started. */
export async function prepareChange(
  releases: Releases,
  previous: string,
  version: string,
  { toRun, log, signal }: Pick<LookOptions, "toRun" | "log" | "signal">,
): Promise<AppSettings> {
  const settings = await releases.settings(version, { toRun });
  const releaseDir = await releases.folderOf(version);
  const hook = { version, releaseDir, previous, log, signal };
  await runHook("before_symlink", settings, { ...hook, cwd: releaseDir });
  await runHook("before_restart", settings, { ...hook, cwd: releases.deploy.path });
  return settings;
}

/** Of the archives of the current version and another. */
export async function sha256Of(releases: Releases, to: string): Promise<Record<string, string | undefined>> {
  const from = (await releases.current()) ?? to;
  return { [from]: await releases.sha256Of(from), [to]: await releases.sha256Of(to) };
}

/**
 * Which version a rollback goes to: the one that is named, else the newest older one that is not known as bad.
 * @throws {Failure | UsageError} when there is none.
 */
export async function chooseRollback(
  releases: Releases,
  { failed = {} }: LauncherState,
  version?: string,
): Promise<string> {
  const from = await releases.current();
  const installed = await releases.installed();
  const older = installed.slice(installed.indexOf(from ?? "") + 1);
  const to = version ?? older.find((each) => !failed[each]);
  const known = older.flatMap((each) => (failed[each] ? `${each}: ${failed[each].reason}` : []));
  if (!from || !to)
    throw new Failure(
      known.length === 0
        ? "there is no older version to go back to"
        : `no older version is known to be good (${known.join("; ")}); name one: launchfit rollback VERSION`,
    );
  if (!installed.includes(to))
    throw new UsageError(`version ${to} is not installed; installed are ${installed.join(", ")}`);
  if (to === from) throw new UsageError(`version ${to} is the current one`);
  return to;
}

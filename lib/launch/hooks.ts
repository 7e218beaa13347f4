import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { Failure, messageOf } from "../core/errors.ts";
import { $, cleanEnvironment, type ProcessOutput, sh, timedOut } from "../exec/exec.ts";
import type { AppSettings } from "./config.ts";

/** The points at which launchfit runs a command of the user's. */
export type HookName = "before_start" | "before_symlink" | "before_restart" | "after_restart";

/** What every hook and the app itself gets in its environment, besides `app.env`. */
export interface HookVariables {
  version: string;
  releaseDir: string;
  /** The version before, at an update or a rollback. */
  previous?: string | undefined;
}

/** The environment of the app and of the hooks. */
export function appEnvironment(
  { version, releaseDir, previous }: HookVariables,
  env: Record<string, string>,
): Record<string, string> {
  return cleanEnvironment({
    ...env,
    LAUNCHFIT_VERSION: version,
    LAUNCHFIT_RELEASE_DIR: releaseDir,
    ...(previous === undefined ? {} : { LAUNCHFIT_PREVIOUS_VERSION: previous }),
  });
}

/** It was the release that failed, not the way to it: it is not tried again. */
export class ReleaseFailed extends Failure {
  override name = "Failure";
}

export interface HookRun extends HookVariables {
  cwd: string;
  log: (line: string) => void;
  signal?: AbortSignal | undefined;
}

/**
 * Run a hook, if there is one: the configured command, else the executable `hooks/NAME` in `cwd` (`before-symlink`
 * and `before_symlink` are one).
 * @throws {ReleaseFailed} when it fails or takes too long.
 */
export async function runHook(
  name: HookName,
  { hooks, env }: Pick<AppSettings, "hooks" | "env">,
  { cwd, log, signal, ...variables }: HookRun,
): Promise<void> {
  const options = {
    cwd,
    env: { ...appEnvironment(variables, env), LAUNCHFIT_HOOK: name },
    timeout: hooks.timeout,
    signal,
    onLine: (line: string) => log(`${name}: ${line}`),
    nothrow: true,
  };
  const command = hooks[name];
  const file = command === undefined ? await executableHook(name, cwd) : undefined;
  if (command === undefined && file === undefined) return;
  const ended = await (command === undefined ? $(options)`${file}` : sh(command, options));
  const wrong = describe(ended);
  if (wrong !== undefined) throw new ReleaseFailed(`the hook ${name} ${wrong}`);
}

function describe(ended: ProcessOutput): string | undefined {
  const { exitCode, signal, cause } = ended;
  if (timedOut(ended)) return "took too long and was ended";
  if (signal !== null) return `was ended by ${signal}`;
  if (exitCode === null) return messageOf(cause);
  return exitCode === 0 ? undefined : `failed with exit code ${exitCode}`;
}

async function executableHook(name: HookName, cwd: string): Promise<string | undefined> {
  for (const spelling of [name, name.replaceAll("_", "-")]) {
    const file = join(cwd, "hooks", spelling);
    const canRun = access(file, constants.X_OK).then(() => true);
    if (await canRun.catch(() => false)) return file;
  }
  return undefined;
}

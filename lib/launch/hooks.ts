import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { Failure, messageOf } from "../core/errors.ts";
import { CommandFailed, cleanEnvironment, run, shell } from "../exec/exec.ts";

/** The points at which launchfit runs a command of the user's (design, section 11). */
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

export interface HookOptions {
  /** The command of `hooks:` in the configuration. */
  command: string | undefined;
  /** Where it runs; an executable `hooks/NAME` there is run when there is no command. */
  cwd: string;
  env: Record<string, string>;
  /** Milliseconds; default 5 minutes. */
  timeout?: number | undefined;
  signal?: AbortSignal | undefined;
  onLine: (line: string) => void;
}

/**
 * Run a hook, if there is one: the configured command, else the executable `hooks/NAME` (`before-symlink`
 * and `before_symlink` are one).
 * @throws {Failure} when it fails or takes too long.
 */
export async function runHook(name: HookName, options: HookOptions): Promise<boolean> {
  const { command, cwd, env, timeout = 300_000, onLine, signal } = options;
  const file = command === undefined ? await executableHook(name, cwd) : undefined;
  if (command === undefined && file === undefined) return false;
  const how = { cwd, env: { ...env, LAUNCHFIT_HOOK: name }, timeout, signal, output: { onLine } };
  try {
    if (command !== undefined) await shell(command, how);
    else if (file !== undefined) await run([file], how);
    return true;
  } catch (error) {
    const ended = error instanceof CommandFailed ? describe(error) : messageOf(error);
    throw new Failure(`the hook ${name} ${ended}`);
  }
}

function describe({ result }: CommandFailed): string {
  if (result.timedOut) return "took too long and was ended";
  return result.signal ? `was ended by ${result.signal}` : `failed with exit code ${result.code}`;
}

async function executableHook(name: HookName, cwd: string): Promise<string | undefined> {
  for (const spelling of [name, name.replaceAll("_", "-")]) {
    const file = join(cwd, "hooks", spelling);
    if (
      await access(file, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return file;
  }
  return undefined;
}

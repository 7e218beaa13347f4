import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { type Listen, parseListen } from "../http/server.ts";
import type { HealthCheck, LaunchConfig } from "./config.ts";

/** The part of the configuration by which the app is run, in the form in which it is used. */
export interface AppSettings {
  exec: string;
  forever: boolean;
  /** How it is ended; TERM and KILL follow. */
  kill: { signal: NodeJS.Signals } | { command: string };
  /** Milliseconds an app has to end before the next harder way. */
  grace: number;
  env: Record<string, string>;
  listen: Listen | undefined;
  /** A new version is started beside the old one, on the same socket. */
  overlap: boolean;
  /** Without url and command it is enough that the app stays alive. */
  health: HealthCheck;
  hooks: LaunchConfig["hooks"];
}

/** Without `app.health` an app must stay alive for as many milliseconds. */
const mustStayAlive = 10_000;
const noHealth: HealthCheck = {
  within: mustStayAlive,
  timeout: mustStayAlive,
  every: 30_000,
};

/**
 * How the app is run.
 * @param directory the deploy directory, for the message.
 * @throws {UsageError} when there is no app.exec, app.listen is wrong, or app.overlap cannot work.
 */
export function appSettings({ app, hooks }: LaunchConfig, directory: string): AppSettings {
  const { exec, forever, kill = "TERM", grace, env, overlap, health } = app;
  const file = join(directory, "launchify.yml");
  if (exec === undefined)
    throw new UsageError(
      `${file}: app.exec is missing, in the release's launchify.yml too; write the command that starts the app`,
    );
  const isSignal = /^(?:SIG)?[A-Z]{3,}[0-9]?$/.test(kill);
  const signal = (kill.startsWith("SIG") ? kill : `SIG${kill}`) as NodeJS.Signals;
  const listen = app.listen === undefined ? undefined : parseListen(app.listen);
  if (overlap && !answersAt(health?.url, listen))
    throw new UsageError(
      `${file}: app.overlap needs app.listen, and in app.health a URL with the port of app.listen, by which the new version is asked`,
    );
  return {
    exec,
    forever,
    kill: isSignal ? { signal } : { command: kill },
    grace,
    env,
    listen,
    overlap,
    health: health ?? noHealth,
    hooks,
  };
}

/** Whether a URL has the port that is handed to the app. */
function answersAt(url: string | undefined, listen: Listen | undefined): boolean {
  if (url === undefined || listen === undefined || !("port" in listen)) return false;
  const { port, protocol } = new URL(url);
  return Number(port || (protocol === "https:" ? 443 : 80)) === listen.port;
}

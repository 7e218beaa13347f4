import { join } from "node:path";
import { messageOf, UsageError } from "../core/errors.ts";
import { type LaunchConfig, readLaunchConfig } from "./config.ts";
import type { DeployDirectory } from "./deploy-directory.ts";
import type { LaunchState } from "./state.ts";

/**
 * What an install wrote into launchify.yml, and who edits the other settings must not lose without a word: the web
 * folder and the app's name. (The pinned key holds without it: state.json has it, too.)
 */

/**
 * @throws {UsageError} when the file names another app than is installed, or no server although there was one.
 */
export async function assertKept(
  deploy: DeployDirectory,
  config: LaunchConfig,
  state: LaunchState,
): Promise<void> {
  const { name } = config.app;
  if (name !== undefined && state.app !== undefined && name !== state.app) {
    const { origins } = await readLaunchConfig(deploy.path);
    throw new UsageError(
      `${origins["app.name"]}: app.name is "${name}", but ${state.app} is installed here; write that, or install the other one in a directory of its own`,
    );
  }
  const lost = lostServer(config, state);
  if (lost !== undefined) throw new UsageError(`${fileOf(deploy)}: ${lost}`);
}

/** @throws {UsageError} when no web folder is known, or none is to be asked. */
export function assertUpdates(deploy: DeployDirectory, { updates }: LaunchConfig): void {
  if (!updates.enabled)
    throw new UsageError(
      `${fileOf(deploy)}: updates are switched off by launchify.yml; take updates: false out of it`,
    );
  if (updates.server.length === 0)
    throw new UsageError(
      "no web folder is known; install the app first (launchfit URL), or write updates.server into launchify.yml",
    );
}

/** Whether a directory follows a web folder, and what is wrong when it does not although nobody said so. */
export interface UpdatesStatus {
  updates: "on" | "off" | "not configured";
  hint?: string;
}

/** The same for `launchfit status`, where a configuration with a mistake must not hide the rest. */
export async function updatesStatus(
  config: () => Promise<LaunchConfig>,
  state: LaunchState,
): Promise<UpdatesStatus> {
  try {
    const read = await config();
    if (!read.updates.enabled) return { updates: "off" };
    if (read.updates.server.length > 0) return { updates: "on" };
    const advice = "write updates.server into launchify.yml, or updates: false if that is meant";
    return { updates: "not configured", hint: lostServer(read, state) ?? advice };
  } catch (error) {
    return { updates: "not configured", hint: messageOf(error) };
  }
}

const fileOf = ({ path }: DeployDirectory) => join(path, "launchify.yml");

function lostServer({ updates }: LaunchConfig, { server = [] }: LaunchState): string | undefined {
  if (!updates.enabled || updates.server.length > 0 || server.length === 0) return undefined;
  const shown = server.map(withoutLogin).join(", ");
  const value = server.length === 1 ? shown : `[${shown}]`;
  return `updates.server is missing; this directory follows ${shown}. Write it back below "updates:" as server: ${value}, or write updates: false if no more updates are wanted`;
}

function withoutLogin(address: string): string {
  const url = new URL(address);
  [url.username, url.password] = ["", ""];
  return url.href;
}

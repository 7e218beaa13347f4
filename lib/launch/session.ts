import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { findTrust, type Trust, type TrustOptions } from "../web-folder/trust.ts";
import type { CurrentLine } from "../web-folder/version-file.ts";
import { type SignedVersion, WebFolder } from "../web-folder/web-folder.ts";
import type { LaunchConfig } from "./config.ts";
import type { DeployDirectory } from "./deploy-directory.ts";
import { type LaunchState, readState } from "./state.ts";

/**
 * Taking a release from a web folder, in steps that can be called one by one, under the directory's lock:
 *
 *     const session = await openSession(deploy, config, options)
 *     const found = await findUpdate(session)           what VERSION says, verified, held against the floors
 *     const verified = await fetchRelease(session, found)   download and signature, to a temporary folder
 *     await unpackRelease(session, found, verified)     unpack, record the floors, releases/NAME-VERSION
 *     await switchCurrent(deploy, found.name)           (deploy-directory.ts)
 *     session.close()
 *
 * After a kill at any instant the directory is as before or as after, and the same steps complete it.
 */
export interface InstallOptions extends TrustOptions {
  allowDowngrade?: boolean | undefined;
  /** Milliseconds; default: updates.timeout. */
  timeout?: number | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, total: number | undefined) => void) | undefined;
  /** In VERSION's words; default: this machine's. */
  platform?: string | undefined;
}

export interface Session {
  readonly deploy: DeployDirectory;
  readonly config: LaunchConfig;
  readonly options: InstallOptions;
  readonly folders: readonly WebFolder[];
  readonly trust: Trust;
  state: LaunchState;
  close(): void;
}

export interface Found {
  /** `unchanged`: VERSION is the one of the last time. `current`: `current` names it already. */
  kind: "unchanged" | "current" | "new";
  /** `my-app-1.23.42b`; empty when unchanged. */
  name: string;
  app: string;
  version: string;
  release?: string;
  expires?: Date;
  /** Where it may be fetched, the best first. */
  offers: Offer[];
}

export interface Offer extends SignedVersion {
  folder: WebFolder;
  line: CurrentLine;
  app: string;
}

/** Read the state and find the pinned key. Needs the folders that `prepare` makes. */
export async function openSession(
  deploy: DeployDirectory,
  config: LaunchConfig,
  options: InstallOptions,
): Promise<Session> {
  if (config.updates.server.length === 0)
    throw new UsageError(
      "no web folder is known; give its URL, or updates.server in launchify.yml",
    );
  const state = await readState(deploy);
  const folders = config.updates.server.map(
    (url) =>
      new WebFolder(url, {
        temporary: deploy.temporary,
        timeout: options.timeout ?? config.updates.timeout,
        maxSize: config.updates.max_size,
        signal: options.signal,
        onProgress: options.onProgress,
        note: options.note,
      }),
  );
  const close = () => {
    for (const folder of folders) folder.close();
  };
  try {
    const pins = config.updates.gpg.key;
    const trust = await findTrust(
      join(deploy.state, "keys"),
      pins.length > 0 ? pins : (state.pin ?? []),
      folders,
      options,
    );
    return { deploy, config, options, folders, trust, state, close };
  } catch (error) {
    close();
    throw error;
  }
}

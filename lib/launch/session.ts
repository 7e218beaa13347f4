import { acquireLock } from "../files/lock.ts";
import { Trust, type TrustOptions } from "../web-folder/trust.ts";
import { WebFolder } from "../web-folder/web-folder.ts";
import type { LaunchConfig } from "./config.ts";
import { type DeployDirectory, prepare } from "./deploy-directory.ts";
import { assertKept, assertUpdates } from "./launch-file.ts";
import { type LaunchState, readState } from "./state.ts";

/** How releases are taken from the web folder. */
export interface InstallOptions extends TrustOptions {
  allowDowngrade?: boolean | undefined;
  /** Milliseconds; default: updates.timeout. */
  timeout?: number | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, total: number | undefined) => void) | undefined;
  /** In VERSION's words; default: this machine's. */
  platform?: string | undefined;
}

/**
 * Taking a release from a web folder, under the fetch lock:
 *
 *     const session = await openSession(deploy, config, what, options)   lock; read what was accepted before
 *     const update = await findUpdate(session)     what VERSION says, verified, checked against what was accepted
 *     await addRelease(session, update)            download, verify, unpack to releases/NAME-VERSION
 *     await switchCurrent(deploy, update.name)     (releases.ts)
 *     await recordDone(session, update)
 *     session.close()
 *
 * After a kill at any instant the directory is as before or as after, and the same steps complete it.
 */
export interface Session {
  readonly deploy: DeployDirectory;
  readonly config: LaunchConfig;
  readonly options: InstallOptions;
  readonly folders: readonly WebFolder[];
  readonly trust: Trust;
  state: LaunchState;
  /** Free the lock and the connections; more than once does no harm. */
  close(): void;
}

/**
 * Take the fetch lock, waiting for whoever has it, and read the state and the pinned keys.
 * @param what names the work, for those who wait for the lock.
 * @throws {UsageError} when no web folder is known, or launchify.yml lost what it must keep.
 * @throws {Refused} when there is no pinned key.
 */
export async function openSession(
  deploy: DeployDirectory,
  config: LaunchConfig,
  what: string,
  options: InstallOptions,
): Promise<Session> {
  const { updates } = config;
  await assertKept(deploy, config, await readState(deploy));
  assertUpdates(deploy, config);
  const { signal, onProgress, note } = options;
  const lock = await acquireLock(deploy.fetchLock, { what, wait: true, signal });
  const { moved } = await readState(deploy);
  const servers = moved?.from.join() === updates.server.join() ? [moved.to] : updates.server;
  const folders = servers.map(
    (url) =>
      new WebFolder(url, {
        temporary: deploy.temporary,
        before: deploy.archive,
        timeout: options.timeout ?? updates.timeout,
        maxSize: updates.max_size,
        signal,
        onProgress,
        note,
      }),
  );
  const close = () => {
    for (const folder of folders) folder.close();
    lock.release();
  };
  try {
    await prepare(deploy);
    const state = { ...(await readState(deploy)), server: updates.server };
    const pins = updates.gpg.key.length > 0 ? updates.gpg.key : (state.pin ?? []);
    const app = config.app.name ?? state.app;
    const trust = await Trust.open({ store: deploy.keys, pinned: pins, folders, app }, options);
    return { deploy, config, options, folders, trust, state, close };
  } catch (error) {
    close();
    throw error;
  }
}

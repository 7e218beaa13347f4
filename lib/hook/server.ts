import { chmod, mkdir, rm } from "node:fs/promises";
import type { Server } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { messageOf } from "../errors.ts";
import { createHttpServer, listenOn } from "../http.ts";
import { formatListen } from "../listen-address.ts";
import { acquireLock } from "../lock.ts";
import { createMask } from "../mask.ts";
import { listenFds, notify, startWatchdog } from "../systemd.ts";
import { version } from "../version.ts";
import { type ConfigOverrides, type HookConfig, loadConfig } from "./config.ts";
import { Deliveries } from "./deliveries.ts";
import { Metrics } from "./metrics.ts";
import { Reconciler } from "./reconcile.ts";
import { Routes } from "./routes.ts";
import { scriptOf } from "./runner.ts";
import { ServerLog } from "./server-log.ts";
import { watchFiles } from "./watch-files.ts";
import { Yard } from "./yard.ts";

export interface ServeOptions {
  file: string;
  overrides: ConfigOverrides;
  quiet: boolean;
}

const tidyEvery = 3_600_000;

/**
 * Serve until SIGTERM or SIGINT.
 * @throws {UsageError} for a config that is wrong, {Busy} when another server has the state folder.
 */
export async function serve({ file, overrides, quiet }: ServeOptions): Promise<void> {
  const load = async () => {
    const read = await loadConfig(file, overrides);
    await findScripts(read);
    return read;
  };
  let config = await load();
  const metrics = new Metrics();
  let mask = createMask(config.secrets);
  const log = new ServerLog({ mask: () => mask, quiet });
  await mkdir(config.state, { recursive: true, mode: 0o711 });
  const lock = await acquireLock(join(config.state, "lock"), { what: "hook-server", wait: 500 });
  const reconciler = new Reconciler(() => yard, log);
  const yard: Yard = await Yard.open({
    config,
    log,
    metrics,
    onGood: async (record) => {
      reconciler.forgetBranch(record.repo);
      await reconciler.good(record);
    },
  });
  const routes = new Routes(
    yard,
    metrics,
    new Deliveries({ yard, log, checkoutBranch: (repo) => reconciler.checkoutBranch(repo) }),
  );
  const bug = (error: unknown) => log.warn(`bug: ${(error as Error)?.stack ?? messageOf(error)}`);
  const web = createHttpServer((request, response) => routes.web(request, response), bug);
  const local = createHttpServer((request, response) => routes.local(request, response), bug);
  const fd = listenFds()[0];
  const address = await listenOn(web, fd === undefined ? config.listen : { fd });
  await listenLocal(local, config.state, log);
  log.warn(`hook-server ${version} listens on ${formatListen(address)}, state in ${config.state}`);
  warnAboutRoot(config, log);
  yard.schedule();
  reconciler.start();
  await notify("READY=1", `STATUS=listening on ${formatListen(address)}`);
  const stopWatchdog = startWatchdog();

  const reload = async () => {
    try {
      const fresh = await load();
      for (const text of needRestart(config, fresh)) log.warn(text);
      config = { ...fresh, listen: config.listen, state: config.state };
      mask = createMask(config.secrets);
      yard.useConfig(config);
      reconciler.restart();
      log.warn(`${file} was read again: ${config.repos.size} repos`);
    } catch (error) {
      log.warn(`${file} was not taken over, the former configuration stays: ${messageOf(error)}`);
    }
  };
  const stopWatching = watchFiles(() => config.files, reload);
  const tidying = setInterval(() => void yard.tidy(), tidyEvery);

  await new Promise<void>((resolve) => {
    let signals = 0;
    const stop = (name: string) => {
      signals += 1;
      if (signals > 1 || name === "SIGINT") yard.endRuns();
      if (signals > 1) return;
      log.warn(
        `${name}: no new deliveries; waiting for ${yard.queue.running} runs, at most ${Math.round(config.drain / 1000)} s`,
      );
      reconciler.stop();
      Promise.all([notify("STOPPING=1"), yard.drain(config.drain)])
        .catch(bug)
        .finally(resolve);
    };
    process.on("SIGTERM", () => stop("SIGTERM"));
    process.on("SIGINT", () => stop("SIGINT"));
    process.on("SIGHUP", () => {
      void notify("RELOADING=1")
        .then(reload)
        .then(() => notify("READY=1"));
    });
  });
  stopWatching();
  stopWatchdog();
  clearInterval(tidying);
  await Promise.all([closeServer(web), closeServer(local)]);
  await rm(join(config.state, "socket"), { force: true });
  lock.release();
  log.warn("hook-server has ended");
  log.flush();
}

/** @throws {UsageError} when a script that a run would need is missing. */
async function findScripts(config: HookConfig): Promise<void> {
  const names = new Map(
    [...config.repos.values()].flatMap((repo) =>
      [`${repo.on.push} push`, `${repo.on.release} release`].map((key) => [key, repo] as const),
    ),
  );
  for (const [key, repo] of names) {
    const kind = key.endsWith(" push") ? "push" : "release";
    if (repo.on[kind] !== false) await scriptOf(repo, kind);
  }
}

async function listenLocal(local: Server, state: string, log: ServerLog): Promise<void> {
  const path = join(state, "socket");
  try {
    // the lock on the folder is ours: a socket that stands there is a dead server's
    await rm(path, { force: true });
    const before = process.umask(0o177);
    try {
      await listenOn(local, { path });
    } finally {
      process.umask(before);
    }
    await chmod(path, 0o600);
  } catch (error) {
    log.warn(`${messageOf(error)}: list, show, log, cancel and rerun will not work`);
  }
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
    // those that follow a log are told by the end of their connection
    setTimeout(() => server.closeAllConnections(), 500).unref();
  });
}

function warnAboutRoot(config: HookConfig, log: ServerLog): void {
  if (process.getuid?.() !== 0) return;
  for (const repo of config.repos.values()) {
    if (!repo.userGiven) log.warn(`${repo.name} is built as root: name its user in ${config.file}`);
  }
}

function needRestart(before: HookConfig, after: HookConfig): string[] {
  const texts: string[] = [];
  if (formatListen(before.listen) !== formatListen(after.listen))
    texts.push("listen has changed: restart to use it");
  if (before.state !== after.state) texts.push("state has changed: restart to use it");
  return texts;
}

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { messageOf } from "../core/errors.ts";
import { formatListen } from "../http/listen-address.ts";
import { acquireLock } from "../files/lock.ts";
import { createMask } from "../config/secrets.ts";
import { listenFds, notify, startWatchdog } from "../http/systemd.ts";
import { version } from "../core/version.ts";
import { type ConfigOverrides, type HookConfig, loadConfig } from "./config.ts";
import { scriptOf } from "./run-script.ts";
import { ServerLog } from "./server-log.ts";
import { Service } from "./service.ts";
import { type Stamps, watchFiles } from "./watch-files.ts";

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
  let stamps: Stamps = new Map();
  const load = async () => {
    stamps = new Map();
    const read = await loadConfig(file, overrides, stamps);
    await findScripts(read);
    return read;
  };
  let config = await load();
  let mask = createMask(config.secrets);
  const log = new ServerLog({ mask: () => mask, quiet });
  mkdirSync(config.state, { recursive: true, mode: 0o711 });
  // what serves deliveries is loaded while flock(1) starts
  const [lock] = await Promise.all([
    acquireLock(join(config.state, "lock"), { what: "hook-server", wait: 500 }),
    import("node:http"),
    import("node:crypto"),
    import("node:zlib"),
  ]);
  const service = await Service.open(config, log);
  const fd = listenFds()[0];
  const address = formatListen(await service.listen(fd === undefined ? config.listen : { fd }));
  log.warn(`hook-server ${version} listens on ${address}, state in ${config.state}`);
  warnAboutRoot(config, log);
  service.start();
  await notify("READY=1", `STATUS=listening on ${address}`);
  const stopWatchdog = startWatchdog();

  const readAgain = async () => {
    try {
      const fresh = await load();
      for (const text of needRestart(config, fresh)) log.warn(text);
      config = { ...fresh, listen: config.listen, state: config.state };
      mask = createMask(config.secrets);
      service.useConfig(config);
      log.warn(`${file} was read again: ${config.repos.size} repos`);
    } catch (error) {
      log.warn(`${file} was not taken over, the former configuration stays: ${messageOf(error)}`);
    }
  };
  // one after the other: the last one to begin must be the last to be taken over
  let reading = Promise.resolve();
  const reload = () => (reading = reading.then(readAgain));
  const stopWatching = watchFiles(() => stamps, reload);
  const tidying = setInterval(() => void service.tidy(), tidyEvery);

  await untilStopped(service, { log, reload, patience: () => config.drain });
  stopWatching();
  stopWatchdog();
  clearInterval(tidying);
  await service.close();
  lock.release();
  log.warn("hook-server has ended");
  log.flush();
}

/** Resolves when a signal has asked for the end, and the runs under way have ended. SIGHUP reloads. */
function untilStopped(
  service: Service,
  {
    log,
    reload,
    patience,
  }: { log: ServerLog; reload: () => Promise<void>; patience: () => number },
): Promise<void> {
  return new Promise((resolve) => {
    let signals = 0;
    const stop = (name: string) => {
      signals += 1;
      if (signals > 1 || name === "SIGINT") service.endRuns();
      if (signals > 1) return;
      const longest = patience();
      log.warn(
        `${name}: no new deliveries; waiting for ${service.running} runs, at most ${Math.round(longest / 1000)} s`,
      );
      Promise.all([notify("STOPPING=1"), service.drain(longest)])
        .catch((error: unknown) => log.warn(`bug: ${messageOf(error)}`))
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

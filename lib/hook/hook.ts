import { mkdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { isDeepStrictEqual } from "node:util";
import { messageOf } from "../core/errors.ts";
import { version } from "../core/version.ts";
import type { Terminal } from "../core/terminal.ts";
import { createMask } from "../core/mask.ts";
import { readConfigs } from "../config/yaml.ts";
import { acquireLock } from "../files/lock.ts";
import { formatListen } from "../http/server.ts";
import { listenFds, notify, startWatchdog } from "../http/systemd.ts";
import { testTargets } from "../notify/notify.ts";
import { check as checkConfig, type Finding } from "./check.ts";
import { HookClient } from "./client.ts";
import {
  type ConfigOverrides,
  findConfig,
  hooksSchema,
  findState,
  type HookConfig,
  loadConfig,
  type Settings,
  shortSecrets,
} from "./config/config.ts";
import { hasLimits, needScopes, thenElsewhere } from "./runs/isolation.ts";
import { scriptOf } from "./runs/run-command.ts";
import { sendPing } from "./send.ts";
import type { HookServer } from "./server.ts";
import { ServerLog } from "./telemetry/telemetry.ts";
import { type Stamps, watchFiles } from "./config/watch-files.ts";

/** What `hook-server` and its commands call. */

export { list, listIgnored, log, run, show, steer } from "./client.ts";
export { showStatus } from "./status-table.ts";

/** Milliseconds between two looks for runs that are too old. */
const tidyInterval = 3_600_000;

/** The flags of hook-server: the path of hooks.yml (undefined: see `findConfig`), and what counts before it. */
export interface HookFlags extends ConfigOverrides {
  config?: string | undefined;
}

/**
 * Serve until SIGTERM or SIGINT.
 * @throws {UsageError} for a config that is wrong, {Busy} when another server has the state folder.
 */
export async function serve(flags: HookFlags, { quiet }: { quiet: boolean }): Promise<void> {
  const file = await findConfig(flags.config);
  let stamps: Stamps = new Map();
  const load = async () => {
    stamps = new Map();
    const config = await loadConfig(file, flags, stamps);
    await findScripts(config);
    return config;
  };
  const config = await load();
  const settings: Settings = { config, mask: createMask(config.secrets) };
  const log = new ServerLog(settings, { quiet });
  mkdirSync(config.state, { recursive: true, mode: 0o711 });
  // a build that could read it could hold it, and keep the next server from starting
  const locking = acquireLock(join(config.state, "lock"), {
    what: "hook-server",
    wait: 500,
    secluded: true,
  });
  // loaded while flock(1) runs
  const [lock, { openServer }] = await Promise.all([locking, import("./server.ts")]);
  const server = await openServer(settings, log);

  const readAgain = async () => {
    try {
      const fresh = await load();
      for (const text of needRestart(settings.config, fresh)) log.warn(text);
      const { listen, state, builder } = settings.config;
      settings.config = { ...fresh, listen, state, builder };
      settings.mask = createMask(fresh.secrets);
      server.reload();
      server.problems.set("config", undefined);
      log.warn(`${file} was read again: ${fresh.repos.size} repos`);
    } catch (error) {
      const problem = `${file} was not taken over, the former configuration stays: ${messageOf(error)}`;
      server.problems.set("config", settings.mask(problem));
      log.warn(problem);
    }
  };
  // one after the other: the last one to start must be the last to take effect
  let reading = Promise.resolve();
  const reload = () => (reading = reading.then(readAgain));
  const [fd, pageFd] = listenFds();
  const given = fd !== undefined && { deliveries: { fd }, ...(pageFd !== undefined && { page: { fd: pageFd } }) };
  const address = formatListen(await server.listen(given || config.listen));
  // a signal may come as soon as it is known that the server is there
  const stopped = untilStopped(server, { settings, log, reload });
  log.warn(`hook-server ${version} listens on ${address}, state in ${config.state}`);
  warnAboutRoot(config, log);
  warnAboutSecrets(config, log);
  server.start();
  announceRuns(config, server, log).catch((error: unknown) => log.bug(error));
  await notify("READY=1", `STATUS=listening on ${address}`);
  const stopWatchdog = startWatchdog();
  const stopWatching = watchFiles(() => stamps, reload);
  const tidying = setInterval(() => void server.tidy(), tidyInterval);

  await stopped;
  stopWatching();
  stopWatchdog();
  clearInterval(tidying);
  await server.close();
  lock.release();
  log.warn("hook-server has stopped");
}

/** Resolves when a signal has asked for the end, and the runs under way have ended. SIGHUP reloads. */
function untilStopped(
  server: HookServer,
  { settings, log, reload }: { settings: Settings; log: ServerLog; reload: () => Promise<void> },
): Promise<void> {
  return new Promise((resolve) => {
    let signals = 0;
    const stop = (name: string) => {
      signals += 1;
      if (signals > 1 || name === "SIGINT") server.endRuns();
      if (signals > 1) return;
      const { drain } = settings.config;
      log.warn(
        `${name}: no new deliveries; waiting for ${server.running()} runs, at most ${Math.round(drain / 1000)} s`,
      );
      Promise.all([notify("STOPPING=1"), server.drain(drain)])
        .catch((error: unknown) => log.bug(error))
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
  for (const repo of config.repos.values())
    for (const kind of ["push", "release"] as const) if (repo.on[kind] !== false) await scriptOf(repo, kind);
}

function warnAboutRoot(config: HookConfig, log: ServerLog): void {
  if (process.getuid?.() !== 0) return;
  for (const repo of config.repos.values()) {
    if (!repo.userGiven) log.warn(`${repo.name} is built as root: name its user in ${config.file}`);
  }
}

/** Say what is not as the file asks for, and, at the first start, what may surprise. */
async function announceRuns(config: HookConfig, server: HookServer, log: ServerLog): Promise<void> {
  if (!server.hasScopes) log.info("runs are in no scopes of systemd: see hook-server --check");
  if (!server.hasScopes && hasLimits(config)) log.warn(`limits: cannot be set here, and runs have none: ${needScopes}`);
  const news = thenElsewhere(config);
  const first = async () =>
    writeFile(join(config.state, "said"), news.join("\n"), { flag: "wx" }).then(
      () => true,
      () => false,
    );
  if (news.length > 0 && (await first())) for (const text of news) log.warn(text);
}

function warnAboutSecrets(config: HookConfig, log: ServerLog): void {
  for (const what of shortSecrets(config))
    log.warn(`${what} is shorter than 16 characters: make a longer one (openssl rand -hex 32), here and at the forge`);
}

function needRestart(before: HookConfig, after: HookConfig): string[] {
  const texts: string[] = [];
  if (!isDeepStrictEqual(before.listen, after.listen)) texts.push("listen has changed: restart to use it");
  if (before.state !== after.state) texts.push("state has changed: restart to use it");
  if (!isDeepStrictEqual(before.builder, after.builder)) texts.push("builders has changed: restart to use it");
  return texts;
}

/**
 * Try what the server and its runs would need. Changes nothing but makes the state folder.
 * @throws {UsageError} for a config that is wrong.
 */
export async function check(flags: HookFlags): Promise<{ file: string; findings: Finding[] }> {
  const file = await findConfig(flags.config);
  const findings = await checkConfig(await loadConfig(file, flags));
  const { value, where } = await readConfigs(file, hooksSchema);
  const names = Object.keys(value.repos);
  return { file, findings: [...names.map((name) => ({ what: `${name}: ${where(["repos", name])}` })), ...findings] };
}

/**
 * Send a sample to every target of `notify:`.
 * @returns 0, or 1 when one did not take it.
 */
export async function sendSample(flags: HookFlags, terminal: Terminal): Promise<number> {
  const config = await loadConfig(await findConfig(flags.config), flags);
  const mask = createMask(config.secrets);
  return await testTargets(config.targets, { by: "hook-server", mask, terminal });
}

/** Send a ping of a repo, as its forge would: see `sendPing`. */
export async function send(flags: HookFlags, what: { repo: string; to: string | undefined }, terminal: Terminal) {
  await sendPing(await loadConfig(await findConfig(flags.config), flags), what, terminal);
}

/** Speaks to the server whose state folder the flags `--config` and `--state` name. */
export async function connect(flags: HookFlags): Promise<HookClient> {
  return new HookClient(await findState(flags.config, flags.state));
}

/** The newest runs that a server knows, for completion in a shell. */
export async function knownRuns(flags: HookFlags): Promise<string[]> {
  const { runs } = await (await connect(flags)).json("/runs?limit=100");
  return (runs as { id: string }[]).map(({ id }) => id);
}

/** The repos of hooks.yml, for the same. */
export async function knownRepos(flags: HookFlags): Promise<string[]> {
  const { value } = await readConfigs(await findConfig(flags.config), hooksSchema);
  return Object.keys(value.repos);
}

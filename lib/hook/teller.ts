import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cleanLine } from "../core/clean.ts";
import { messageOf } from "../core/errors.ts";
import { $, commandFailure } from "../exec/exec.ts";
import { parseLine } from "../log/format.ts";
import { lastLines } from "../log/tail.ts";
import { Outbox, type OutboxTarget } from "../notify/notify.ts";
import { statusItem, statusTarget } from "../statuses/statuses.ts";
import { hasEnded, type Run, type RunStore, type Telling } from "../run-store/run-store.ts";
import type { RepoConfig, Settings } from "./config/config.ts";
import type { RunFolders } from "./runs/folders.ts";
import { afterCommand } from "./runs/run-command.ts";
import { commitOf, endVariables, forgeOf, noticeOf, statusOf } from "./runs/run-news.ts";
import { failedStage } from "./runs/run-stages.ts";
import type { ServerLog } from "./telemetry/telemetry.ts";

interface TellerParts {
  settings: Settings;
  store: RunStore;
  folders: RunFolders;
  log: ServerLog;
  /** Of several builders this one, which tells of its own runs only. */
  home: string | undefined;
}

/** Milliseconds until an end that could not be handed over is handed over again. */
const retryDelay = 30_000;

/**
 * Tells what becomes of runs, by the outbox: commit statuses at their forges, messages to people, and the commands that
 * are told of a failure or a change. Who is to be told of an end is written with the end itself, and struck out when
 * the outbox has it: a crash loses nothing.
 */
export class Teller {
  readonly #parts: TellerParts;
  readonly #outbox: Outbox;
  readonly #abort = new AbortController();
  /** The repos of which the log says that they get no statuses. */
  readonly #withoutForge = new Set<string>();
  /** One after the other: what a failure means depends on the one before, and a commit's newest state comes last. */
  #handing: Promise<void> = Promise.resolve();

  private constructor(parts: TellerParts, outbox: Outbox) {
    this.#parts = parts;
    this.#outbox = outbox;
  }

  /** Open what a former server left in the state folder. */
  static async open(parts: TellerParts): Promise<Teller> {
    const { settings, log } = parts;
    const outbox = await Outbox.open({
      folder: join(settings.config.state, "notify"),
      targets: targetsOf(parts),
      // that of the configuration in force, also after a reload
      mask: (text) => settings.mask(text),
      log: (text) => log.warn(text),
    });
    return new Teller(parts, outbox);
  }

  /** Who is to be told of a run's end: for the line that says so. */
  onEnd(run: Run): { tell?: Telling[] } {
    const tell = this.tellingOf(run);
    return tell.length > 0 ? { tell } : {};
  }

  private tellingOf(record: Run): Telling[] {
    const { targets } = this.#parts.settings.config;
    const { onFailure = [], onChange = [] } = this.repoOf(record) ?? {};
    const telling: Telling[] = [];
    if (commitOf(record) !== undefined && this.hostOf(record) !== undefined) telling.push("status");
    if (record.state !== "succeeded" && record.state !== "failed") return telling;
    if (targets.length > 0 || onChange.length > 0) telling.push("message");
    if (onChange.length > 0 || (record.state === "failed" && onFailure.length > 0)) telling.push("commands");
    return telling;
  }

  /** Tell of what a run has become, once that is safe. */
  private tell(run: Run): void {
    if (run.home !== this.#parts.home) return;
    if (hasEnded(run)) return this.ended(run);
    const put = this.status(run, false);
    if (put) this.#handing = this.#handing.then(put).catch((error: unknown) => this.#parts.log.bug(error));
  }

  /** Hand a run's end over, again and again while the disk is full. */
  private ended(run: Run): void {
    if (!run.tell?.length) return;
    const { signal } = this.#abort;
    this.#handing = this.#handing
      .then(() => this.handOver(run))
      .catch((error: unknown) => {
        this.#parts.log.warn(`telling of run ${run.id}: ${messageOf(error)}; tried again`);
        sleep(retryDelay, undefined, { signal }).then(
          () => this.ended(run),
          () => {},
        );
      });
  }

  /** Go on with what a former server did not get told, then tell of what becomes of runs. */
  start(): void {
    const { store } = this.#parts;
    const untold = [...store.runs()].filter(({ tell }) => tell?.length);
    untold.sort((a, b) => (a.ended ?? "").localeCompare(b.ended ?? ""));
    for (const run of [...untold, ...store.open()]) this.tell(run);
    void this.#handing.then(() => this.#outbox.start());
    store.watch((now, before) => {
      if (now && now.state !== before?.state) this.tell(now);
    });
  }

  /** Apply a configuration that was replaced. */
  async reload(): Promise<void> {
    this.#withoutForge.clear();
    await this.#outbox.setTargets(targetsOf(this.#parts));
  }

  /** Stop telling. What was not told stays on disk for the next server. */
  async close(): Promise<void> {
    this.#abort.abort();
    await this.#handing;
    await this.#outbox.close();
  }

  private repoOf({ repo }: Run): RepoConfig | undefined {
    return this.#parts.settings.config.repos.get(repo);
  }

  private hostOf(record: Run): string | undefined {
    const hosts = this.#parts.settings.config.forges.map(({ host }) => host);
    const { host, problem } = forgeOf(record, hosts, this.repoOf(record)?.forge);
    if (problem !== undefined && !this.#withoutForge.has(record.repo)) {
      this.#withoutForge.add(record.repo);
      this.#parts.log.warn(`status: no forge is told of a run of ${record.repo}: ${problem}`);
    }
    return host;
  }

  /** Puts the state that a run has now into the outbox; undefined where no forge is told. */
  private status(record: Run, keep: boolean): (() => Promise<void>) | undefined {
    const { config, mask } = this.#parts.settings;
    const host = this.hostOf(record);
    const status = host === undefined ? undefined : statusOf(record, { url: config.url, context: "boatyard" });
    if (host === undefined || !status) return undefined;
    const description = cleanLine(mask(status.description));
    const item = statusItem({ ...status, description });
    return () => this.#outbox.put(`status ${host}`, item, { keep });
  }

  private async handOver(record: Run): Promise<void> {
    const { store, folders, settings, log } = this.#parts;
    const { id, repo, tell = [] } = record;
    let { change } = record;
    if (tell.includes("status")) await this.status(record, true)?.();
    if (tell.includes("message")) {
      const part = record.state === "failed" ? failedStage(record.stages) : undefined;
      const printed = await lastLines(folders.path(id, "log"), part);
      const lines = printed.filter((line) => parseLine(line)?.stage !== "hook-server");
      ({ change } = await this.#outbox.tell(noticeOf(record, { url: settings.config.url, lines })));
    }
    const item = { key: id, about: `run ${id}`, repo, message: { run: id, change } };
    if (tell.includes("commands")) await this.#outbox.put(`commands ${repo}`, item);
    // to tell again what was told is better than to wait for the disk each time
    await store
      .change(id, ({ tell: _tell, ...run }) => ({ ...run, ...(change && { change }) }))
      .catch((error: unknown) => log.warn(`run ${id}: ${messageOf(error)}; it may be told twice`));
  }
}

/** What a repo's commands are told: the run, and what its end means. */
interface ForCommands {
  run: string;
  change?: Run["change"];
}

/** People, the forges, and the commands of each repo. */
function targetsOf(parts: TellerParts): OutboxTarget[] {
  const { targets, forges, repos } = parts.settings.config;
  const commands = [...repos.values()].map(
    (repo): OutboxTarget<ForCommands> => ({
      ...{ id: `commands ${repo.name}`, name: `commands of ${repo.name}`, limit: 2 ** 31 - 1 },
      send: async ([told], signal) => told && (await runCommands(parts, repo, told, signal)),
    }),
  );
  return [...targets, ...forges.map(statusTarget), ...commands];
}

/** on_failure and on_change. One that fails is in the log, and not tried again. */
async function runCommands(
  { store, folders, settings, log }: TellerParts,
  repo: RepoConfig,
  { run: id, change }: ForCommands,
  signal: AbortSignal,
): Promise<void> {
  const run = store.get(id);
  if (!run) return;
  const record = { ...run, change };
  const commands = [
    ...(record.state === "failed" ? repo.onFailure.map((text) => ["on_failure", text] as const) : []),
    ...(record.change === undefined ? [] : repo.onChange.map((text) => ["on_change", text] as const)),
  ];
  const more = endVariables(record, { url: settings.config.url, logFile: folders.path(id, "log") });
  const payloadFile = folders.path(id, "hook-payload.json");
  for (const [name, text] of commands) {
    const { argv, env } = afterCommand(text, repo, record, { payloadFile, more });
    const output = await $({ cwd: "/", env, timeout: repo.timeout, signal, nothrow: true })`${argv}`;
    if (signal.aborted) throw new Error("it was stopped");
    if (output.ok) continue;
    const said = output.stderr.trim().split("\n").at(-1)?.slice(0, 200) ?? "";
    const why = commandFailure(output)?.timedOut ? "took too long" : `exit ${output.exitCode}`;
    log.warn(`${name} of run ${id}: ${why}${said === "" ? "" : `: ${said}`}`);
  }
}

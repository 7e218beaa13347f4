import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Mask } from "../core/mask.ts";
import { cleanLine } from "../core/clean.ts";
import { messageOf } from "../core/errors.ts";
import { $, commandFailure } from "../exec/exec.ts";
import { parseLine } from "../log/format.ts";
import { lastLines } from "../log/tail.ts";
import { Notifier } from "../notify/notify.ts";
import { Statuses } from "../statuses/statuses.ts";
import type { RepoConfig, Settings } from "./config/config.ts";
import { hasEnded, type Records, type RunFacts, type RunRecord, type Telling } from "./runs/records.ts";
import { afterCommand } from "./runs/run-command.ts";
import { commitOf, endVariables, forgeOf, noticeOf, statusOf } from "./runs/run-news.ts";
import { failedStage } from "./runs/run-stages.ts";
import type { ServerLog } from "./telemetry/telemetry.ts";

interface TellerParts {
  settings: Settings;
  records: Records;
  log: ServerLog;
}

/** Milliseconds until a message that could not be kept is handed over again. */
const retryDelay = 30_000;

/**
 * Tells what becomes of runs: commit statuses at their forges, messages to people, and the commands that are told of a
 * failure or a change. All of it out of the way of runs. Who is still to be told of an end stands in the run's record,
 * written with the end itself, until they were: a crash loses nothing.
 */
export class Teller {
  readonly #parts: TellerParts;
  readonly #notifier: Notifier;
  readonly #statuses: Statuses;
  readonly #abort = new AbortController();
  /** The repos of which the log says that they get no statuses. */
  readonly #withoutForge = new Set<string>();
  /** The runs whose end is being told. */
  readonly #telling = new Set<string>();
  /** Ends are handed over one after the other: what a failure means depends on the one before. */
  #handing: Promise<void> = Promise.resolve();
  #saving: Promise<void> = Promise.resolve();

  private constructor(parts: TellerParts, notifier: Notifier, mask: Mask) {
    this.#parts = parts;
    this.#notifier = notifier;
    const log = (text: string) => parts.log.warn(text);
    this.#statuses = new Statuses({ forges: parts.settings.config.forges, mask, log });
  }

  /** Open what a former server left in the state folder. */
  static async open(parts: TellerParts): Promise<Teller> {
    const { settings, log } = parts;
    // the mask of the configuration in force, also after a reload
    const mask: Mask = Object.assign((text: string) => settings.mask(text), {
      spans: (text: string) => settings.mask.spans(text),
    });
    const notifier = await Notifier.open({
      folder: join(settings.config.state, "notify"),
      targets: settings.config.targets,
      mask,
      log: (text) => log.warn(text),
    });
    return new Teller(parts, notifier, mask);
  }

  /** Who is to be told of a run's end: for its record, in the same write as the end. */
  tellingOf(record: RunFacts): Telling[] {
    const { targets } = this.#parts.settings.config;
    const { onFailure = [], onChange = [] } = this.repoOf(record) ?? {};
    const telling: Telling[] = [];
    if (commitOf(record) !== undefined && this.hostOf(record) !== undefined) telling.push("status");
    if (record.state !== "succeeded" && record.state !== "failed") return telling;
    if (targets.length > 0 || onChange.length > 0) telling.push("message");
    if (onChange.length > 0 || (record.state === "failed" && onFailure.length > 0)) telling.push("commands");
    return telling;
  }

  /** A run waits or is under way. */
  progress(record: RunRecord): void {
    if (!hasEnded(record.state)) this.setStatus(record, () => {});
  }

  /** A run has ended, and its record on disk says who is to be told. */
  ended(record: RunRecord | undefined): void {
    if (!record?.tell?.length || this.#telling.has(record.id)) return;
    this.#telling.add(record.id);
    if (record.tell.includes("status")) this.setStatus(record, () => void this.told(record.id, "status"));
    this.hand(record);
  }

  /** Hand a run's end over, again and again: on a full disk, say, what is still to be told stands in its record. */
  private hand(record: RunRecord): void {
    const { signal } = this.#abort;
    this.#handing = this.#handing
      .then(() => this.handOver(record))
      .catch((error: unknown) => {
        this.#parts.log.warn(`telling of run ${record.id}: ${messageOf(error)}; tried again`);
        sleep(retryDelay, undefined, { signal }).then(
          () => this.hand(record),
          () => {},
        );
      });
  }

  /** Go on with what a former server did not get told. */
  start(): void {
    const untold = [...this.#parts.records.all()].filter(({ tell }) => tell?.length);
    for (const record of untold.sort((a, b) => (a.ended ?? "").localeCompare(b.ended ?? ""))) this.ended(record);
    void this.#handing.then(() => this.#notifier.start());
  }

  /** Apply a configuration that was replaced. */
  async reload(): Promise<void> {
    const { forges, targets } = this.#parts.settings.config;
    this.#withoutForge.clear();
    this.#statuses.setForges(forges);
    await this.#notifier.setTargets(targets);
  }

  /** Stop telling. What was not told stays on disk for the next server. */
  async close(): Promise<void> {
    this.#abort.abort();
    this.#statuses.close();
    await this.#handing;
    await this.#notifier.close();
    await this.#saving;
  }

  private repoOf({ repo }: RunFacts): RepoConfig | undefined {
    return this.#parts.settings.config.repos.get(repo);
  }

  private hostOf(record: RunFacts): string | undefined {
    const hosts = this.#parts.settings.config.forges.map(({ host }) => host);
    const { host, problem } = forgeOf(record, hosts, this.repoOf(record)?.forge);
    if (problem !== undefined && !this.#withoutForge.has(record.repo)) {
      this.#withoutForge.add(record.repo);
      this.#parts.log.warn(`status: no forge is told of a run of ${record.repo}: ${problem}`);
    }
    return host;
  }

  private setStatus(record: RunRecord, onSettled: () => void): void {
    const { url } = this.#parts.settings.config;
    const host = this.hostOf(record);
    if (host === undefined) return onSettled();
    const context = "boatyard";
    const status = statusOf(record, { url, context });
    if (!status) return onSettled();
    const since = Date.parse(record.ended ?? "") || Date.now();
    const description = cleanLine(this.#parts.settings.mask(status.description));
    this.#statuses.set(host, record.id, { ...status, description }, { since, onSettled });
  }

  /** Give the message to the notifier, which keeps it from then on, and start the commands. */
  private async handOver(record: RunRecord): Promise<void> {
    const { records, settings } = this.#parts;
    if (record.tell?.includes("message")) {
      const part = record.state === "failed" ? failedStage(record.stages) : undefined;
      const printed = await lastLines(records.path(record.id, "log"), part);
      const lines = printed.filter((line) => parseLine(line)?.stage !== "hook-server");
      const { url } = settings.config;
      const { change } = await this.#notifier.tell(noticeOf(record, { url, lines }));
      record.change = change;
      await this.told(record.id, "message");
    }
    if (record.tell?.includes("commands"))
      // they may take their time, and hold up neither other messages nor other runs
      void this.runCommands(record).catch((error: unknown) => this.#parts.log.bug(error));
  }

  private async runCommands(record: RunRecord): Promise<void> {
    const repo = this.repoOf(record);
    const { onFailure = [], onChange = [] } = repo ?? {};
    const commands = [
      ...(record.state === "failed" ? onFailure.map((text) => ["on_failure", text] as const) : []),
      ...(record.change === undefined ? [] : onChange.map((text) => ["on_change", text] as const)),
    ];
    for (const [name, text] of commands) {
      if (!repo || this.#abort.signal.aborted) return;
      await this.runCommand(name, text, repo, record);
    }
    if (!this.#abort.signal.aborted) await this.told(record.id, "commands");
  }

  private async runCommand(name: string, text: string, repo: RepoConfig, record: RunRecord): Promise<void> {
    const { records, settings, log } = this.#parts;
    const logFile = records.path(record.id, "log");
    const more = endVariables(record, { url: settings.config.url, logFile });
    const payloadFile = records.path(record.id, "hook-payload.json");
    const { argv, env } = afterCommand(text, repo, record, { payloadFile, more });
    const output = await $({
      ...{ cwd: "/", env, timeout: repo.timeout, signal: this.#abort.signal, nothrow: true },
    })`${argv}`;
    if (output.ok || this.#abort.signal.aborted) return;
    const said = output.stderr.trim().split("\n").at(-1)?.slice(0, 200) ?? "";
    const why = commandFailure(output)?.timedOut ? "took too long" : `exit ${output.exitCode}`;
    log.warn(`${name} of run ${record.id}: ${why}${said === "" ? "" : `: ${said}`}`);
  }

  /** Somebody was told: the record says so from now on. One write after the other, the newest last. */
  private told(id: string, what: Telling): Promise<void> {
    this.#saving = this.#saving.then(async () => {
      const record = this.#parts.records.get(id);
      if (!record?.tell) return;
      record.tell = record.tell.filter((each) => each !== what);
      if (record.tell.length === 0) {
        delete record.tell;
        this.#telling.delete(id);
      }
      // to tell again what was told is better than to wait for the disk each time
      await this.#parts.records
        .save(record, { durable: false })
        .catch((error: unknown) => this.#parts.log.warn(`run ${id}: ${messageOf(error)}; it may be told twice`));
    });
    return this.#saving;
  }
}

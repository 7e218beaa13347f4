import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Mask } from "../core/mask.ts";
import { cleanLine } from "../core/clean.ts";
import { messageOf } from "../core/errors.ts";
import { $, commandFailure } from "../exec/exec.ts";
import { parseLine } from "../log/format.ts";
import { lastLines } from "../log/tail.ts";
import { Outbox, type OutboxTarget } from "../notify/notify.ts";
import { statusItem, statusTarget } from "../statuses/statuses.ts";
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
    // the mask of the configuration in force, also after a reload
    const mask: Mask = Object.assign((text: string) => settings.mask(text), {
      spans: (text: string) => settings.mask.spans(text),
    });
    const folder = join(settings.config.state, "notify");
    const options = { folder, mask, log: (text: string) => log.warn(text), targets: settings.config.targets };
    return new Teller(parts, await Outbox.open(options, otherTargets(parts)));
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
    if (hasEnded(record.state)) return;
    const put = this.status(record, false);
    if (put) this.#handing = this.#handing.then(put).catch((error: unknown) => this.#parts.log.bug(error));
  }

  /** A run has ended, and its record says who is to be told. Handed over again and again while the disk is full. */
  ended(record: RunRecord | undefined): void {
    if (!record?.tell?.length) return;
    const { signal } = this.#abort;
    this.#handing = this.#handing
      .then(() => this.handOver(record))
      .catch((error: unknown) => {
        this.#parts.log.warn(`telling of run ${record.id}: ${messageOf(error)}; tried again`);
        sleep(retryDelay, undefined, { signal }).then(
          () => this.ended(record),
          () => {},
        );
      });
  }

  /** Go on with what a former server did not get told. */
  start(): void {
    const untold = [...this.#parts.records.all()].filter(({ tell }) => tell?.length);
    for (const record of untold.sort((a, b) => (a.ended ?? "").localeCompare(b.ended ?? ""))) this.ended(record);
    void this.#handing.then(() => this.#outbox.start());
  }

  /** Apply a configuration that was replaced. */
  async reload(): Promise<void> {
    this.#withoutForge.clear();
    await this.#outbox.setTargets(this.#parts.settings.config.targets, otherTargets(this.#parts));
  }

  /** Stop telling. What was not told stays on disk for the next server. */
  async close(): Promise<void> {
    this.#abort.abort();
    await this.#handing;
    await this.#outbox.close();
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

  /** Puts the state that a run has now into the outbox; undefined where no forge is told. */
  private status(record: RunRecord, keep: boolean): (() => Promise<void>) | undefined {
    const { config, mask } = this.#parts.settings;
    const host = this.hostOf(record);
    const status = host === undefined ? undefined : statusOf(record, { url: config.url, context: "boatyard" });
    if (host === undefined || !status) return undefined;
    const description = cleanLine(mask(status.description));
    const item = statusItem({ ...status, description });
    return () => this.#outbox.put(`status ${host}`, item, { keep });
  }

  private async handOver(record: RunRecord): Promise<void> {
    const { records, settings, log } = this.#parts;
    const { id, repo, tell } = record;
    if (!tell) return;
    if (tell.includes("status")) await this.status(record, true)?.();
    if (tell.includes("message")) {
      const part = record.state === "failed" ? failedStage(record.stages) : undefined;
      const printed = await lastLines(records.path(id, "log"), part);
      const lines = printed.filter((line) => parseLine(line)?.stage !== "hook-server");
      const { change } = await this.#outbox.tell(noticeOf(record, { url: settings.config.url, lines }));
      record.change = change;
    }
    const item = { key: id, about: `run ${id}`, repo, message: { run: id } };
    if (tell.includes("commands")) await this.#outbox.put(`commands ${repo}`, item);
    delete record.tell;
    // to tell again what was told is better than to wait for the disk each time
    await records
      .save(record, { durable: false })
      .catch((error: unknown) => log.warn(`run ${id}: ${messageOf(error)}; it may be told twice`));
  }
}

/** Besides people: the forges, and the commands of each repo. */
function otherTargets(parts: TellerParts): OutboxTarget[] {
  const { forges, repos } = parts.settings.config;
  const commands = [...repos.values()].map(
    (repo): OutboxTarget<{ run: string }> => ({
      ...{ id: `commands ${repo.name}`, name: `commands of ${repo.name}`, limit: 2 ** 31 - 1 },
      send: async ([{ run } = { run: "" }], signal) => await runCommands(parts, repo, run, signal),
    }),
  );
  return [...forges.map(statusTarget), ...commands];
}

/** on_failure and on_change. One that fails is in the log, and not tried again. */
async function runCommands({ records, settings, log }: TellerParts, repo: RepoConfig, id: string, signal: AbortSignal) {
  const record = records.get(id);
  if (!record) return;
  const commands = [
    ...(record.state === "failed" ? repo.onFailure.map((text) => ["on_failure", text] as const) : []),
    ...(record.change === undefined ? [] : repo.onChange.map((text) => ["on_change", text] as const)),
  ];
  const more = endVariables(record, { url: settings.config.url, logFile: records.path(id, "log") });
  const payloadFile = records.path(id, "hook-payload.json");
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

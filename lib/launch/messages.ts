import { join, resolve } from "node:path";
import { createMask } from "../core/mask.ts";
import { messageOf, UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { type Notice, Outbox, type SampleResult, sendSamples } from "../notify/notify.ts";
import type { AppLog } from "./app-log.ts";
import { readNotifyTargets } from "./config.ts";
import { ownDirectory } from "./deploy-directory.ts";
import type { Releases } from "./releases.ts";
import type { LauncherState } from "./state.ts";

/** Lines of the log that a message about a failure shows. */
const logLines = 20;

interface MessagesOptions {
  releases: Releases;
  log: AppLog;
  isRunning: boolean;
}

/**
 * Tells people what changes in what launchfit remembers, by the deploy directory's `notify:`. Whoever uses it holds the
 * directory's lock. Nothing that goes wrong here keeps launchfit from its work.
 */
export class Messages {
  readonly #options: MessagesOptions;
  /** Of the targets as they are now. */
  #secrets = createMask([]);
  #outbox: Outbox | undefined;
  #isClosed = false;
  /** The last mistake that was said. */
  #trouble: string | undefined;

  private constructor(options: MessagesOptions) {
    this.#options = options;
  }

  /**
   * Tell what a former launchfit could not tell.
   * @param options.isRunning messages go out as they come; else they wait for `close`.
   */
  static async open(options: MessagesOptions): Promise<Messages> {
    const messages = new Messages(options);
    if (await exists(folderOf(options.releases))) await messages.orSay(() => messages.outbox());
    return messages;
  }

  /** Send what waits, for at most `limit` milliseconds; what is left then, the next launchfit sends. */
  async close(limit: number): Promise<void> {
    this.#isClosed = true;
    await this.orSay(async () => {
      await this.#outbox?.flush(limit);
      await this.#outbox?.close();
    });
  }

  /** Tell what changed, now or by the next launchfit. */
  async changed(before: LauncherState, after: LauncherState): Promise<void> {
    const { releases, log } = this.#options;
    if (this.#isClosed) return;
    await this.orSay(async () => {
      const notices = noticesOf(await releases.app(), before, after);
      const outbox = notices.length === 0 ? undefined : await this.outbox();
      for (const notice of notices)
        await outbox?.tell({ ...notice, lines: notice.outcome === "failed" ? log.last(logLines) : [] });
    });
  }

  /** With the targets as they are configured now; undefined when there never were any. */
  private async outbox(): Promise<Outbox | undefined> {
    const { releases, log, isRunning } = this.#options;
    const targets = await this.orSay(() => readNotifyTargets(releases.deploy.path));
    if (!targets) return this.#outbox;
    this.#trouble = undefined;
    this.#secrets = createMask(targets.flatMap(({ secrets }) => secrets));
    if (this.#outbox) await this.#outbox.setTargets(targets);
    else if (targets.length > 0) {
      const mask = (text: string) => this.#secrets(text);
      this.#outbox = await Outbox.open({ folder: folderOf(releases), targets, mask, log: log.own });
      if (isRunning) this.#outbox.start();
    }
    return this.#outbox;
  }

  private async orSay<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      const why = messageOf(error);
      if (why !== this.#trouble) this.#options.log.own(`notify: ${why}; nobody is told`);
      this.#trouble = why;
      return undefined;
    }
  }
}

function folderOf({ deploy }: Releases): string {
  return join(deploy.state, "notify");
}

/**
 * `launchfit notify test`: send a sample to every target.
 * @throws {UsageError} when `notify:` has a mistake, or names nobody.
 * @throws {Refused} as `assertOwn` does: a target may be a command.
 */
export async function notifyTest(folder: string): Promise<SampleResult[]> {
  await ownDirectory(folder);
  const targets = await readNotifyTargets(folder);
  if (targets.length === 0)
    throw new UsageError(`${join(resolve(folder), "launchify.yml")}: notify: names nobody to tell (docs/notify.md)`);
  const mask = createMask(targets.flatMap(({ secrets }) => secrets));
  return await sendSamples(targets, { by: "launchfit", mask });
}

/**
 * What people are told, by what launchfit remembers before and after. Pure. Three things break and heal alone: the
 * app, its last update, and whether updates are accepted at all.
 */
export function noticesOf(app: string, before: LauncherState, after: LauncherState): Notice[] {
  type Told = Pick<Notice, "outcome" | "what" | "reason">;
  const notices: Notice[] = [];
  const notice = (kind: "app" | "update" | "check", at: string, told: Told) => {
    const subject = { app, update: `${app} update`, check: `${app} updates` }[kind];
    notices.push({ id: `${kind}-${at}`, by: "launchfit", subject, at, ...told });
  };
  const { lastUpdate, lastCheck, crashLoop } = after;
  if (lastUpdate && lastUpdate.at !== before.lastUpdate?.at) {
    const { at, from, to, ok, reason } = lastUpdate;
    const isFailed = after.updateFailed && after.failed?.[to]?.at !== before.failed?.[to]?.at;
    const outcome = before.updateFailed ? "ok" : "news";
    if (ok) notice("update", at, { outcome, what: `version ${to} in place of ${from}` });
    // what the network or the disk did is tried again
    else if (isFailed) notice("update", at, { outcome: "failed", what: "an update failed", reason });
  }
  if (lastCheck && lastCheck.at !== before.lastCheck?.at) {
    const { at, result: reason, ok, code } = lastCheck;
    if (code === 4) notice("check", at, { outcome: "failed", what: "updates are refused", reason });
    // a server that cannot be reached refuses nothing, and heals nothing
    else if (ok && before.refused) notice("check", at, { outcome: "ok", what: "updates are accepted again" });
  }
  if (crashLoop && !before.crashLoop)
    notice("app", crashLoop.at, { outcome: "failed", what: "it is given up", reason: crashLoop.reason });
  if (!crashLoop && before.crashLoop)
    notice("app", new Date().toISOString(), { outcome: "ok", what: "it runs again, for a minute now" });
  return notices;
}

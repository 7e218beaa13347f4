import { rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { cleanLine } from "../../core/clean.ts";
import { exitCodeOf, Failure, messageOf, systemCode } from "../../core/errors.ts";
import { formatDuration, formatSize } from "../../core/units.ts";
import { firstError } from "../../log/first-error.ts";
import { textOfLine } from "../../log/format.ts";
import { lastLines } from "../../log/tail.ts";
import {
  hasEnded,
  isUnderWay,
  type Run,
  type RunStage,
  type RunState,
  type RunStore,
} from "../../run-store/run-store.ts";
import type { RepoConfig, Settings } from "../config/config.ts";
import { isApart } from "../payload/payload.ts";
import type { ServerLog } from "../telemetry/telemetry.ts";
import { builtCommit, notCheckedOut } from "./checkout.ts";
import type { RunFolders } from "./folders.ts";
import { type Exit, type Job, type JobPlan, type Jobs } from "./job.ts";
import { afterCommand, type Command, scriptCommand, scriptOf } from "./run-command.ts";
import { logSize, noteInLog, sealLog } from "./run-log.ts";
import { endVariables } from "./run-news.ts";
import { closeStages, failedStage, readStages } from "./run-stages.ts";

export interface RunParts {
  readonly settings: Settings;
  readonly store: RunStore;
  readonly folders: RunFolders;
  readonly jobs: Jobs;
  readonly log: ServerLog;
  /** Who is to be told of a run's end, and what that means: for the line that says so. */
  readonly onEnd: (run: Run) => Partial<Run>;
  /** Of several builders: whether another one may have the run by now. Then nothing of it counts that happens here. */
  readonly isLost: () => boolean;
}

/** Why a run is to stop before its end: `server` and `leave` are the server's own end, `lost` is that of its claim. */
export type Stop =
  | "server"
  | "leave"
  | "lost"
  | { readonly why: string; readonly by?: string; readonly cancelledBy?: string };

/** Exit code of `build` and `release` when another process holds the checkout's lock. */
const busyCode = 3;
/** What is said of a run whose repo another builder has taken, or may have. */
const lostClaim = "the claim of the repo was lost; a builder runs it again";
/** Milliseconds after which a run is tried again that could not be started. */
const retryDelay = 5000;
const maxBusyDelay = 60_000;
/** So much of a failed stage's output is searched for its error, in bytes from its end. */
const searchedBytes = 1024 * 1024;
const shortages = new Set("ENOSPC EDQUOT EIO EMFILE ENFILE EAGAIN ENOMEM EROFS".split(" "));
const isShortage = (error: unknown) => shortages.has(systemCode(error) ?? "");

/**
 * Take a run through its commands, the script and then those of `on_success`, from wherever the store says that it is
 * to its end. After a restart this same function goes on. Each step is in the store before it is taken.
 * @param repo undefined: it is not configured any more.
 * @param signal is aborted with a `Stop`.
 * @param tries how often its checkout was busy before.
 * @returns milliseconds after which it may be tried again, when it waits again.
 */
export async function run(
  given: Run,
  { repo, signal, tries, ...parts }: RunParts & { repo: RepoConfig | undefined; signal: AbortSignal; tries: number },
): Promise<number | undefined> {
  const { store, folders, jobs, log, settings } = parts;
  const { id } = given;
  const logFile = folders.path(id, "log");
  const stopped = () => signal.reason as Stop;
  let now = given;

  try {
    let job = isUnderWay(now) ? await jobs.find(planOf(now, now.step ?? 0), now.job ?? {}) : undefined;
    if (!repo) {
      await job?.end();
      return await end("failed", `lost: ${now.repo} is not configured any more`);
    }
    if (signal.aborted && typeof stopped() !== "string") {
      await job?.end();
      return await endAsAsked();
    }
    if (job) log.info(`run ${id} of ${now.repo} outlived the former server; it goes on`);
    else if (isUnderWay(now)) return await interrupted();
    else {
      const payload = (await store.payload(id)) ?? (await folders.payload(id));
      if (!payload) return await end("failed", "lost: its delivery is not kept any more; push again");
      await folders.make(id, payload, repo.user);
      const wrong = now.onlyIfCheckedOut && (await notCheckedOut(now, repo));
      if (wrong) return await end(wrong.state, wrong.reason);
    }

    for (let step = now.step ?? 0; ; step += 1) {
      if (signal.aborted && !job) return await endAsAsked();
      job ??= await begin(step, repo);
      const outcome = await follow(job, repo);
      job = undefined;
      if (outcome === "left") return undefined;
      if (parts.isLost()) return lose();
      if (outcome === "stopped") return await endAsAsked();
      if (outcome === undefined) return await interrupted();
      const { code, reason, met } = outcome;
      if (code === busyCode && step === 0 && reason === undefined) return await busy();
      now = { ...now, exit: code };
      const isLast = now.kind !== "push" || isApart(repo, now) || step >= repo.afterwards.length;
      if (code === 0 && reason === undefined && !isLast) continue;
      const isGood = code === 0 && reason === undefined;
      return await (isGood ? end("succeeded", met) : end("failed", await whyFailed(step, outcome)));
    }
  } catch (error) {
    if (parts.isLost()) return lose();
    // another builder has cancelled it before it started
    if (hasEnded(store.get(id) ?? { state: "superseded" })) return undefined;
    // whatever goes wrong in a run ends that run or lets it wait, not the server
    const reason = messageOf(error);
    if (isShortage(error) && !isUnderWay(store.get(id) ?? now)) {
      log.warn(`run ${id} of ${now.repo} cannot start: ${reason}; it waits`);
      return retryDelay;
    }
    const isBug = exitCodeOf(error) === undefined && systemCode(error) === undefined;
    if (isBug) log.bug(error);
    return await end("failed", isBug ? "an error of hook-server; see its log" : reason);
  }

  /** Change the run as it is now in the store, which nobody else does while it is under way. */
  async function change(more: Partial<Run>): Promise<void> {
    if (parts.isLost()) throw new Failure(lostClaim);
    const isOurs = (known: Run) => !hasEnded(known) && known.fence === given.fence;
    const next = await store.change(id, (known) => (isOurs(known) ? { ...known, ...more } : undefined));
    if (!next) throw new Error(`run ${id} has ended meanwhile`);
    now = next;
  }

  /** The same, however long the disk is full: what has happened must be known before anything else does. */
  async function changeSurely(more: Partial<Run>): Promise<void> {
    for (let isSaid = false; ; isSaid = true)
      try {
        return await change(more);
      } catch (error) {
        if (parts.isLost()) return;
        if (systemCode(error) === undefined && !(error instanceof Failure)) throw error;
        if (!isSaid)
          log.warn(`what became of run ${id} cannot be written: ${messageOf(error)}; tried again each second`);
        if (stopped() === "server") return;
        await sleep(1000);
      }
  }

  /** Another builder has the run, or will. */
  function lose(): undefined {
    noteInLog(logFile, id, lostClaim);
    log.warn(`run ${id} of ${now.repo} interrupted: ${lostClaim}`);
  }

  function planOf(of: Run, step: number): JobPlan {
    const limits = step === 0 ? (repo?.limits ?? {}) : {};
    return {
      run: id,
      name: `${id}-${of.attempt}-${step}`,
      logFile,
      exitFile: folders.path(id, "exit"),
      limits,
    };
  }

  /** Start a command. By what it is found is in the store before. */
  async function begin(step: number, { user, afterwards }: RepoConfig): Promise<Job> {
    const isFirst = step === 0;
    const stages = isFirst ? undefined : await stagesWith(step);
    const fresh: Partial<Run> = {
      ...{ attempt: now.attempt + 1, started: new Date().toISOString(), user: user.name },
      ...{ ended: undefined, reason: undefined, exit: undefined, seconds: undefined },
    };
    const next: Run = { ...now, ...(isFirst ? fresh : {}), state: "starting", step, stages };
    const { command, argv } = await commandOf(next, step, repo as RepoConfig, afterwards[step - 1]);
    const plan = planOf(next, step);
    // the exit code of the command before must not be taken for this one's
    await rm(plan.exitFile, { force: true });
    const marks = jobs.marksOf(plan);
    await change({ ...next, ...(argv ? { argv } : {}), job: marks });
    if (!isFirst) noteInLog(logFile, id, `then: ${afterwards[step - 1]}`);
    const job = await jobs.start(plan, marks, command);
    const what = [now.kind, now.ref, now.sha ?? ""].join(" ").trimEnd();
    if (isFirst) log.info(`run ${id} of ${now.repo} started: ${what}`);
    await change({ state: "running", job: job.marks }).catch((error: unknown) =>
      log.warn(`the process of run ${id} cannot be noted: ${messageOf(error)}`),
    );
    return job;
  }

  async function commandOf(of: Run, step: number, { ...config }: RepoConfig, text = "") {
    const payloadFile = folders.path(id, "hook-payload.json");
    if (step > 0) {
      const more = endVariables(of, { url: settings.config.url, logFile });
      return { command: afterCommand(text, config, of, { payloadFile, more }) as Command };
    }
    const script = await scriptOf(config, of.kind);
    const stageFile = folders.path(id, "stages");
    const command = scriptCommand(script, config, of, { payloadFile, stageFile });
    return { command: command as Command, argv: [...command.script] };
  }

  /** Follow a command to its end. */
  async function follow(job: Job, { timeout }: RepoConfig): Promise<Exit | "left" | "stopped"> {
    const deadline = Date.parse(now.started ?? now.accepted) + timeout;
    const asked = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    const exited = job.exit.then(() => {});
    let isOver = false;
    void exited.finally(() => (isOver = true)).catch(() => {});
    let cut: string | undefined;
    while (!isOver && !cut && !signal.aborted) {
      await Promise.race([exited, asked, sleep(200)]);
      const max = settings.config.maxLog;
      if (((await logSize(logFile)) ?? 0) > max) cut = `wrote more than ${formatSize(max)} of log and was ended`;
      else if (!isOver && Date.now() > deadline) cut = `took longer than ${formatDuration(timeout)} and was ended`;
    }
    if (stopped() === "leave" && !cut && !isOver) return "left";
    const wasAsked = signal.aborted && stopped() !== "leave" && !isOver;
    if (cut || wasAsked) await job.end();
    const exit = await job.exit;
    if (cut) return { code: exit?.code ?? 128, reason: cut };
    return wasAsked ? "stopped" : exit;
  }

  async function endAsAsked(): Promise<number | undefined> {
    const stop = stopped();
    if (typeof stop === "string") return isUnderWay(now) ? await interrupted() : undefined;
    return await end("cancelled", stop.why, { by: stop.by, cancelledBy: stop.cancelledBy });
  }

  /** An attempt was cut off: the run waits for the next one. */
  async function interrupted(): Promise<number> {
    noteInLog(logFile, id, "interrupted by the end of the server; it runs again");
    log.warn(`run ${id} of ${now.repo} was interrupted; it runs again`);
    await changeSurely({
      ...{ state: "waiting", step: undefined, job: undefined },
      reason: "interrupted: the server ended while it ran; it runs again",
      interrupted: [...(now.interrupted ?? []), new Date().toISOString()],
    });
    return 0;
  }

  async function busy(): Promise<number | undefined> {
    if (signal.aborted) return await endAsAsked();
    log.info(`run ${id} of ${now.repo} waits: the checkout is busy`);
    const reason = "the checkout is busy: another build holds its lock";
    await changeSurely({ state: "waiting", step: undefined, job: undefined, reason });
    return Math.min(maxBusyDelay, 500 * 2 ** Math.min(tries + 1, 10));
  }

  async function stagesWith(step: number): Promise<RunStage[]> {
    const at = new Date();
    const before = closeStages(await stagesNow(), { result: "ok", now: at });
    const from = await logSize(logFile);
    return [...before, { name: `then: ${repo?.afterwards[step - 1]}`, started: at.toISOString(), from }];
  }

  /** Once the script has ended, its file is not asked any more. */
  async function stagesNow(): Promise<readonly RunStage[]> {
    return now.stages ?? (await readStages(folders.path(id, "stages")));
  }

  /** The stage and why it failed, and the line of its output that tells more: `test: exit code 1: TypeError: …`. */
  async function whyFailed(step: number, { code, reason, met }: NonNullable<Exit>): Promise<string> {
    const stages = await stagesNow();
    const stage = failedStage(stages) ?? stages.find(({ result }) => result === undefined);
    const why = [reason ?? stage?.why ?? `exit code ${code}`, met].filter(Boolean).join("; ");
    const lines = (await lastLines(logFile, stage, searchedBytes)).map(textOfLine);
    const error = lines[firstError(lines)]?.trim().slice(0, 200);
    const more = error === undefined || why.includes(error) ? undefined : error;
    const parts = [step > 0 ? "on_success" : stage?.name, why, more].filter(
      (part) => part !== undefined && part !== "",
    );
    return cleanLine(settings.mask(parts.join(": ")));
  }

  async function end(state: RunState, reason?: string, more: Pick<Run, "by" | "cancelledBy"> = {}): Promise<undefined> {
    const at = new Date();
    const seconds = Math.max(0, at.getTime() - Date.parse(now.started ?? now.accepted)) / 1000;
    const result = state === "succeeded" ? "ok" : state === "cancelled" ? "cancelled" : "failed";
    const stages = closeStages(await stagesNow(), {
      result,
      now: at,
      size: await logSize(logFile),
    });
    const text = `${state}${reason ? `: ${reason}` : ""} (${seconds.toFixed(1)} s)`;
    const { mask, config } = settings;
    const isMasked = await sealLog(logFile, { max: config.maxLog, mask, id, text }).catch((error: unknown) =>
      log.warn(`the log of ${id} was not searched for secrets: ${messageOf(error)}`),
    );
    // with its secrets masked, the log's lines are no longer where they were
    const placed = isMasked ? stages.map((each) => ({ ...each, from: undefined, to: undefined })) : stages;
    const built = await builtCommit(now, config);
    const ended: Partial<Run> = {
      ...{ ...more, state, reason, seconds, built, exit: now.exit, job: undefined },
      ...{ ended: at.toISOString(), ...(stages.length > 0 ? { stages: placed } : {}) },
    };
    await changeSurely({ ...ended, ...parts.onEnd({ ...now, ...ended }) });
    if (parts.isLost()) return lose();
    log.info(`run ${id} of ${now.repo} ${text}`);
    return undefined;
  }
}

import { byHand, type LauncherState, type VersionChange, withFailed } from "./state.ts";

/**
 * All that launchfit decides about its app: `next(state, event)` gives the state after an event and what is to be done.
 * It is pure: no clock, no disk, no process; launcher.ts does what it says and tells it what came of it.
 *
 * What touches the app is `work`: steps in their order, one work at a time. The first that fails ends it: `failed`.
 *
 *     phase      event     phase after            work
 *     off        boot      starting               start
 *                          changing               start, health, confirm    (a change was killed after its switch)
 *     starting   done      running, or watched
 *                failed    ending; waiting        (at the boot; later)
 *     running    ended     waiting, given up, ending
 *                ill       starting               end, start
 *                restart   starting               read, end, start
 *                change    changing               record, read, end, switch, start, health, confirm
 *                                                 with overlap: record, read, beside, switch, hand over, confirm
 *                rollback  choosing               choose                    (`chosen`: as `change`)
 *     changing   done      watched, or running (a rollback)
 *                failed    running                (nothing was touched, or only the one beside)
 *                          changing               end, switch, start …      (it cannot run beside another)
 *                          undoing                end, switch back
 *     watched    ended     undoing                end, switch back
 *                ill       undoing                end, switch back
 *                timer     running                                          the verdict: it holds up
 *     undoing    done      starting               start                     the verdict: it does not
 *     waiting    timer     starting               start
 *     any        stop      ending                 end                       then quit
 *
 * `waiting` and `given up` take restart, change and rollback as `running` does, and so does `watched`. What comes while
 * work is under way waits for its end.
 */
export function next(state: State, event: Event): Result {
  let [after, effects] = handle(state, event);
  for (;;) {
    // what had to wait is done as soon as it can be
    const at = after.deferred.findIndex(({ type }) => table[after.phase][type] !== undefined);
    const first = after.deferred[at];
    if (!first) return [after, effects];
    const rest = { ...after, deferred: after.deferred.toSpliced(at, 1) };
    const [later, more] = handle(rest, { ...first, at: event.at, clock: event.clock });
    [after, effects] = [later, [...effects, ...more]];
  }
}

export type Phase =
  | ("off" | "starting" | "running" | "choosing" | "changing" | "watched" | "undoing")
  | ("waiting" | "given up" | "ending");

export interface State {
  phase: Phase;
  /** false: `check --once` and the like; nothing runs, a switch is all. */
  runs: boolean;
  /** Set once the app was up. */
  isUp: boolean;
  /** The version that `current` names. */
  version: string;
  /** The process that is the app; undefined while none lives. */
  pid?: number | undefined;
  /** The change that is under way, or watched. */
  change?: Change | undefined;
  /** Who asked for a check, the first one being answered now; undefined: launchfit itself. */
  checks: (number | undefined)[];
  /** Told when the app is up again; an error lacks what became of it. */
  owed?: { asker: Asker | undefined; answer: Answer } | undefined;
  deferred: Event[];
  restarts: Restarts;
  /** When it was started again for its bad health, lately. */
  illAt: number[];
  leftIll: boolean;
  /** How the app ended the last time by itself. */
  lastEnd?: string | undefined;
  /** What is on the disk: launcher.json. */
  memory: LauncherState;
}

export interface Change extends VersionChange {
  /** Start the new one beside the old one. */
  overlap?: boolean;
  /** Why it does not hold up. */
  wrong?: string;
  asker?: Asker | undefined;
  /** Of the archives, by version. */
  sha256: Record<string, string | undefined>;
}

/** Who is told what came of it: the first of `checks`, or a request of the control socket. */
export type Asker = "check" | number;

export type Answer = { ok: true; [key: string]: unknown } | { ok: false; code: number; error: string };

/** What a look at the web folder found. */
export type Found = { offered?: LauncherState["offered"] } & (
  | { kind: "nothing"; version: string; result: string }
  /** `renamed`: what the version was called that has the place of `to` no more. */
  | { kind: "ready"; to: string; renamed?: string | undefined; overlap: boolean; sha256: Change["sha256"] }
  /** `to` is there when an update was tried; `isRelease`: the fault is its own, it is not tried again. */
  | { kind: "failed"; reason: string; code: number; to?: string; isRelease?: boolean; sha256?: string | undefined }
);

type Happening =
  | { type: "boot"; current: string; memory: LauncherState; sha256: Change["sha256"] }
  | { type: "done"; pid?: number | undefined }
  /** `byItself`: the one beside ended without being told to. `code`: the exit code that the reason stands for. */
  | { type: "failed"; step: Step["do"]; reason: string; code?: number; byItself?: boolean; pid?: number | undefined }
  | { type: "ended"; pid: number; how: string; code: number; lived: number; forever: boolean; follows: boolean }
  | { type: "ill"; pid: number; wrong: string; forever: boolean }
  | { type: "timer" }
  | { type: "check"; id?: number | undefined }
  | ({ type: "looked" } & Found)
  | { type: "restart"; id: number }
  | { type: "rollback"; id: number; version?: string | undefined }
  | ({ type: "change" } & Omit<Change, "from">)
  | ({ type: "chosen" } & Omit<Change, "from">)
  | { type: "stop" };

/** What happened, and when: by the day (ISO 8601) and by the clock that never jumps. */
export type Event = Happening & { at: string; clock: number };

export type Step =
  /** The change is on the disk before anything is touched. */
  | { do: "record" }
  /** The configuration of a version has no mistake. */
  | { do: "read"; version: string }
  | { do: "end" }
  | { do: "switch"; to: string }
  /** The hook before_start, then the process. */
  | { do: "start"; version: string }
  | { do: "health" }
  /** Start beside the app, and wait for its health. */
  | { do: "beside"; version: string }
  /** The one beside is the app; the one before ends. */
  | { do: "hand over" }
  /** The hook after_restart has the last word. */
  | { do: "confirm"; change: Change }
  /** Which version a rollback goes to: `chosen`. */
  | { do: "choose"; id: number; version?: string | undefined };

export type Effect =
  | { do: "work"; steps: Step[] }
  | { do: "look" }
  | { do: "say"; line: string }
  | { do: "reply"; id: number; answer: Answer }
  /** A `timer` after so long; it ends with its phase. */
  | { do: "timer"; ms: number | "watch" }
  /** The next check, by itself. */
  | { do: "plan" }
  | { do: "prune"; needed: string[] }
  | { do: "abort" }
  | { do: "quit"; code: number; error?: string };

export type Result = [State, Effect[]];

export const initial = (runs: boolean): State => ({
  ...{ phase: "off", runs, isUp: false, version: "", memory: {} },
  ...{ checks: [], deferred: [], restarts: { quick: 0, total: 0 }, illAt: [], leftIll: false },
});

type Handlers = {
  [Type in Event["type"]]?: (state: State, event: Extract<Event, { type: Type }>) => Result;
};

const requests = {
  restart: (state, { id }) => [
    {
      ...state,
      phase: "starting",
      restarts: { quick: 0, total: state.restarts.total },
      illAt: [],
      owed: { asker: id, answer: { ok: true, version: state.version } },
      memory: { ...state.memory, stopped: undefined },
    },
    [work({ do: "read", version: state.version }, { do: "end" }, start(state))],
  ],
  rollback: (state, { id, version }) => [
    // who asked is told, should there be none
    { ...state, phase: "choosing", owed: { asker: id, answer: { ok: true } } },
    [work({ do: "choose", id, version })],
  ],
  change: (state, { to, overlap = false, asker, isRollback = false, sha256, at }) => {
    const from = state.version;
    const nothing: Answer = { ok: true, version: to, result: "up to date", updated: false };
    if (from === to) return tell(state, asker, nothing, at);
    const kind = { ...(isRollback && { isRollback }), ...(!state.runs && { isOffline: true }) };
    const beside = overlap && state.pid !== undefined;
    const change: Change = { from, to, ...kind, asker, sha256, overlap: beside };
    // the one that is still watched is not judged any more
    const replaced: Answer = { ok: false, code: 1, error: `${from} was replaced by ${to} while it was watched` };
    const [told, effects] = tell(state, state.change?.asker, replaced, at);
    const line = isRollback ? `rollback ${from} → ${to}` : `update ${from} → ${to}`;
    return begin(told, change, [...effects, say(line)]);
  },
} satisfies Handlers;

const table: Record<Phase, Handlers> = {
  off: { boot },
  starting: {
    done: (state, { pid, at }) => {
      const { owed, change, memory } = state;
      const up: State = { ...state, pid, isUp: true, owed: undefined, phase: change ? "watched" : "running" };
      const answer: Answer | undefined = owed?.answer.ok
        ? { ...owed.answer, pid }
        : owed && { ...owed.answer, error: `${owed.answer.error} runs again` };
      const [told, effects] = answer ? tell(up, owed?.asker, answer, at) : [up, []];
      const recovers = memory.crashLoop ? [timer(goodRun)] : [];
      return [told, [...effects, ...(change ? [timer("watch")] : recovers)]];
    },
    failed: (state, { step, reason, code = 1, pid, at }) => {
      const { owed, isUp, change } = state;
      if (!isUp)
        return [{ ...state, phase: "ending" }, [say(`cannot start: ${reason}`), { do: "quit", code, error: reason }]];
      const undone = owed?.answer.ok === false ? `${owed.answer.error} is started again` : undefined;
      const answer: Answer = { ok: false, code: undone === undefined ? code : 1, error: undone ?? reason };
      const [told, effects] = tell(
        { ...state, pid: step === "read" ? state.pid : pid, owed: undefined },
        ...([owed?.asker, answer, at] as const),
      );
      // a mistake in the configuration is seen before the app is ended
      if (step === "read")
        return change
          ? [{ ...told, phase: "watched" }, [...effects, timer("watch")]]
          : [{ ...told, phase: told.pid === undefined ? "given up" : "running" }, effects];
      const [later, more] = notRunning(told, { how: reason, code: 1, lived: 0, forever: true, follows: true, at });
      return [later, [...effects, say(`cannot start: ${reason}`), ...more]];
    },
  },
  running: {
    ...requests,
    ended: (state, event) => {
      if (event.pid !== state.pid) return [state, []];
      const [after, effects] = notRunning({ ...state, pid: undefined, lastEnd: event.how }, event);
      return [after, [say(`${state.version} ended with ${event.how}`), ...effects]];
    },
    ill: (state, { pid, wrong, forever, clock }) => {
      if (pid !== state.pid || !forever) return [state, []];
      const illAt = planIllRestart(state.illAt, clock);
      const what = `${state.version} is not healthy (${wrong})`;
      const left = `and was started again ${maxIllRestarts} times within an hour: it stays as it is`;
      if (!illAt) return [{ ...state, leftIll: true }, state.leftIll ? [] : [say(`${what}, ${left}`)]];
      const restarts = { ...state.restarts, total: state.restarts.total + 1 };
      const lastEnd = `bad health (${wrong})`;
      return [
        { ...state, phase: "starting", illAt, leftIll: false, restarts, lastEnd },
        [say(`${what}: it is started again`), work({ do: "end" }, start(state))],
      ];
    },
    // it has run for a good while
    timer: (state) => [{ ...state, memory: { ...state.memory, crashLoop: undefined } }, []],
  },
  waiting: { ...requests, timer: (state) => [{ ...state, phase: "starting" }, [work(start(state))]] },
  "given up": requests,
  choosing: {
    chosen: (state, event) => requests.change({ ...state, owed: undefined }, { ...event, type: "change" }),
    failed: (state, { reason, code = 1, at }) => {
      const { owed, change, pid, runs } = state;
      const phase = change ? "watched" : pid === undefined && runs ? "given up" : "running";
      const back: State = { ...state, phase, owed: undefined };
      const [told, effects] = tell(back, owed?.asker, { ok: false, code, error: reason }, at);
      return [told, [...effects, ...(change ? [timer("watch")] : [])]];
    },
  },
  changing: {
    done: (state, event) => {
      const version = state.change?.to ?? "";
      const up: State = { ...state, pid: event.pid, version, isUp: true, phase: "watched" };
      // what a person goes back to has held up before
      return state.runs && !state.change?.isRollback ? [up, [timer("watch")]] : holdsUp(up, event);
    },
    failed: (state, { step, reason, code = 1, byItself, pid, at }) => {
      const { change } = state;
      if (!change) return [state, []];
      const { from, to } = change;
      // the app was not touched: should it have ended meanwhile, that comes after this
      const known = ["record", "read", "beside"].includes(step) ? state : { ...state, pid };
      if (step === "record" || step === "read") return untouched(known, { ok: false, code, error: reason }, at);
      if (step !== "beside") return undo(known, reason);
      if (!byItself) return fails({ ...known, phase: "running" }, { ...change, wrong: reason }, `${from} runs on`, at);
      const line = `${to} cannot run beside ${from}: ${reason}; ${from} is ended first`;
      return begin(known, { ...change, overlap: false }, [say(line)]);
    },
  },
  watched: {
    ...requests,
    ended: (state, { pid, how }) =>
      pid === state.pid
        ? undo({ ...state, pid: undefined, lastEnd: how }, `it ended with ${how} soon after its start`)
        : [state, []],
    ill: (state, { pid, wrong }) =>
      pid === state.pid ? undo(state, `it was not healthy soon after its start: ${wrong}`) : [state, []],
    timer: holdsUp,
  },
  undoing: {
    done: (state, { at }) => back(state, state.change?.from ?? "", at),
    // it cannot be switched back: the new one, which is current, is started again
    failed: (state, { reason, at }) => {
      const [after, effects] = back(state, state.change?.to ?? "", at);
      return [after, [say(`cannot go back: ${reason}`), ...effects]];
    },
  },
  ending: {
    // what was under way may just have started it
    done: (state, { pid }) =>
      pid === undefined ? [{ ...state, pid }, [{ do: "quit", code: 0 }]] : [state, [work({ do: "end" })]],
    failed: (state) => [state, [work({ do: "end" })]],
  },
};

/** What is done in every phase, where that phase says nothing else. */
const always: Handlers = {
  check: (state, { id }) => [
    { ...state, checks: [...state.checks, id] },
    state.checks.length === 0 ? [{ do: "look" }] : [],
  ],
  looked,
  stop: (state) => {
    if (state.phase === "ending") return [state, []];
    const { change, checks, phase } = state;
    const left = change ? `; its next start checks the health of ${change.to}` : "";
    const answer: Answer = { ok: false, code: 1, error: `launchfit is ending${left}` };
    const asked = [...checks, change?.asker, state.owed?.asker].filter((id) => typeof id === "number");
    const told = asked.map((id): Effect => ({ do: "reply", id, answer }));
    // a work under way comes to its end first, and soon
    const isBusy = ["starting", "choosing", "changing", "undoing"].includes(phase);
    const end = isBusy ? [] : [work({ do: "end" })];
    return [{ ...state, phase: "ending", checks: [] }, [{ do: "abort" }, ...told, ...end]];
  },
};

function handle(state: State, event: Event): Result {
  const handler = table[state.phase][event.type] ?? always[event.type];
  if (handler) return (handler as (state: State, event: Event) => Result)(state, event);
  const waits = ["restart", "rollback", "change", "ended"].includes(event.type) && state.phase !== "ending";
  const known = event.type === "ended" ? { ...state, lastEnd: event.how } : state;
  return [waits ? { ...known, deferred: [...state.deferred, event] } : known, []];
}

function boot(state: State, { current, memory, sha256 }: Extract<Event, { type: "boot" }>): Result {
  const { pending } = memory;
  const known: State = { ...state, version: current, memory };
  const fresh: State = { ...known, memory: { ...memory, pending: undefined } };
  if (pending?.to !== current)
    return state.runs ? [{ ...fresh, phase: "starting" }, [work(start(known))]] : [{ ...fresh, phase: "running" }, []];
  // whoever runs the app checks its health
  if (!state.runs && !pending.isOffline) return [{ ...known, phase: "running" }, []];
  const change: Change = { ...pending, sha256 };
  const run: Step[] = state.runs ? [start(known), { do: "health" }] : [];
  const line = `the update to ${current} was interrupted: checking its health`;
  return [{ ...known, phase: "changing", change }, [say(line), work(...run, { do: "confirm", change })]];
}

function looked(state: State, event: Extract<Event, { type: "looked" }>): Result {
  const { at, clock, offered = state.memory.offered } = event;
  const memory: LauncherState = { ...state.memory, offered };
  const seen = { ...state, memory };
  if (event.kind === "ready") {
    const { to, renamed = seen.version, overlap, sha256 } = event;
    const known = seen.version === to ? { ...seen, version: renamed } : seen;
    return handle(known, { type: "change", to, overlap, sha256, asker: "check", at, clock });
  }
  if (event.kind === "nothing") {
    const { version, result } = event;
    return tell(seen, "check", { ok: true, version, result, updated: false }, at);
  }
  const { reason, code, to, isRelease, sha256 } = event;
  const answer: Answer = { ok: false, code, error: reason };
  if (to === undefined) return tell(seen, "check", answer, at);
  const lastUpdate = { at, from: state.version, to, ok: false, reason };
  // what the network or the disk did is tried again; what the release did is not
  const failed = isRelease ? { failed: withFailed(memory.failed, to, { reason, sha256, at }), updateFailed: true } : {};
  return tell({ ...seen, memory: { ...memory, lastUpdate, ...failed } }, "check", answer, at);
}

function begin(state: State, change: Change, said: Effect[]): Result {
  const { from, to, isRollback, isOffline, overlap } = change;
  const pending = { from, to, ...(isRollback && { isRollback }), ...(isOffline && { isOffline }) };
  const replace: Step[] = [{ do: "end" }, { do: "switch", to }, { do: "start", version: to }, { do: "health" }];
  const beside: Step[] = [{ do: "beside", version: to }, { do: "switch", to }, { do: "hand over" }];
  const steps: Step[] = !state.runs ? [{ do: "switch", to }] : overlap ? beside : replace;
  const all: Step[] = [{ do: "record" }, { do: "read", version: to }, ...steps, { do: "confirm", change }];
  return [{ ...state, phase: "changing", change, memory: { ...state.memory, pending } }, [...said, work(...all)]];
}

/** The verdict: the change is good. */
function holdsUp(state: State, { at }: { at: string }): Result {
  const { change, memory, runs } = state;
  if (!change) return [{ ...state, phase: "running" }, []];
  const { from, to, isRollback, sha256, asker } = change;
  const { [to]: _, ...others } = memory.failed ?? {};
  const failed = isRollback ? withFailed(others, from, { reason: byHand, sha256: sha256[from], at }) : others;
  const lastUpdate = { at, from, to, ok: true };
  const done = {
    lastUpdate,
    failed,
    updateFailed: undefined,
    pending: undefined,
    ...(runs ? { stopped: undefined } : {}),
  };
  const result = `${isRollback ? "rolled back" : "updated"} ${from} → ${to}`;
  const good: State = { ...state, phase: "running", change: undefined, memory: { ...memory, ...done } };
  const [told, effects] = tell(good, asker, { ok: true, version: to, result, updated: true }, at);
  return [told, [{ do: "prune", needed: [to] }, ...effects]];
}

/** It does not hold up, and has taken the place of the one before: that comes back. */
function undo(state: State, wrong: string): Result {
  const change = state.change as Change;
  const { from, to } = change;
  const line = `${to} did not hold up: ${wrong}; going back to ${from}`;
  const steps: Step[] = [...(state.runs ? [{ do: "end" } as const] : []), { do: "switch", to: from }];
  return [{ ...state, phase: "undoing", change: { ...change, wrong } }, [say(line), work(...steps)]];
}

/** The verdict after an undo, told once the one before is started. */
function back(state: State, version: string, at: string): Result {
  const change = state.change as Change;
  const known: State = { ...state, version, pid: undefined, phase: state.runs ? "starting" : "running" };
  if (!state.runs) return fails(known, change, `${change.from} is current again`, at);
  const [noted] = fails(known, { ...change, asker: undefined }, "", at);
  const told = `${change.to} did not hold up: ${change.wrong}; ${version}`;
  const answer = { ok: false, code: 1, error: told } as const;
  return [{ ...noted, owed: { asker: change.asker, answer } }, [work(start(noted))]];
}

/** The verdict: it is not good, and is not tried again. */
function fails(
  state: State,
  { from, to, wrong: reason = "", sha256, asker }: Change,
  then: string,
  at: string,
): Result {
  const told = `${to} did not hold up: ${reason}`;
  const failed = withFailed(state.memory.failed, to, { reason, sha256: sha256[to], at });
  const lastUpdate = { at, from, to, ok: false, reason: told };
  const memory = { ...state.memory, failed, lastUpdate, updateFailed: true, pending: undefined };
  return tell({ ...state, change: undefined, memory }, asker, { ok: false, code: 1, error: `${told}; ${then}` }, at);
}

/** A request failed before anything was touched. */
function untouched(state: State, answer: Answer, at: string): Result {
  const phase = state.pid === undefined && state.runs ? "given up" : "running";
  const memory = { ...state.memory, pending: undefined };
  return tell({ ...state, phase, change: undefined, memory }, state.change?.asker, answer, at);
}

/** The app does not run although nobody wanted that: with `forever` it is started after a pause. */
function notRunning(
  state: State,
  { how, code, lived, forever, follows, at }: Omit<Extract<Event, { type: "ended" }>, "type" | "pid" | "clock">,
): Result {
  const plan = forever ? planRestart(state.restarts, lived, how) : undefined;
  if (plan?.again)
    return [
      { ...state, phase: "waiting", restarts: plan.restarts },
      [say(`starts again in ${plan.pause / 1000} s`), timer(plan.pause)],
    ];
  const reason = plan?.reason ?? `the app ended with ${how}`;
  const stopped = { at, reason };
  const memory = { ...state.memory, stopped, ...(plan ? { crashLoop: stopped } : {}) };
  // an update may bring the app back: that is worth staying for
  if (plan && follows) {
    const line = `GIVEN UP: ${reason}; it starts again with the next update or launchfit restart`;
    return [{ ...state, phase: "given up", memory }, [say(line)]];
  }
  const line = plan ? `GIVEN UP: ${reason}` : reason;
  return [{ ...state, phase: "ending", memory }, [say(line), { do: "quit", code: plan ? 1 : code }]];
}

/** What came of it, for whoever asked. */
function tell(state: State, asker: Asker | undefined, answer: Answer, at: string): Result {
  if (asker === undefined) return [state, []];
  if (asker !== "check") return [state, [{ do: "reply", id: asker, answer }]];
  const [id, ...checks] = state.checks;
  const lastCheck = answer.ok
    ? { at, result: String(answer["result"]), ok: true }
    : { at, result: answer.error, ok: false, code: answer.code };
  const refused = answer.ok ? undefined : answer.code === 4 || state.memory.refused;
  const effects: Effect[] = [
    ...(answer.ok ? [] : [say(`update: ${answer.error}`)]),
    ...(id === undefined ? [] : [{ do: "reply", id, answer } as const]),
    checks.length > 0 ? { do: "look" } : { do: "plan" },
  ];
  return [{ ...state, checks, memory: { ...state.memory, lastCheck, refused } }, effects];
}

const work = (...steps: Step[]): Effect => ({ do: "work", steps });
const say = (line: string): Effect => ({ do: "say", line });
const timer = (ms: number | "watch"): Effect => ({ do: "timer", ms });
const start = ({ version }: State): Step => ({ do: "start", version });

/** Milliseconds an app must have lived for its crashes so far to be forgiven. */
export const goodRun = 60_000;
/** After so many quick ends in a row the app is given up. */
export const crashLoop = 10;
/** So often an app that runs and is not healthy is started again within an hour; then it stays as it is. */
const maxIllRestarts = 5;

const minPause = 1000;
const maxPause = 60_000;
const hour = 3_600_000;

/** What is known of the app's ends. */
export interface Restarts {
  /** Ends in a row, each after less than a good run. */
  quick: number;
  /** Starts after the first one, ever. */
  total: number;
}

type RestartPlan =
  | { again: true; pause: number; restarts: Restarts; reason?: undefined }
  | { again: false; reason: string };

/** Whether, and after how many milliseconds, an app is started again that lived for `lived` milliseconds. */
export function planRestart(restarts: Restarts, lived: number, how: string): RestartPlan {
  const quick = lived >= goodRun ? 1 : restarts.quick + 1;
  const times = `it ended ${quick} times in a row within a minute, the last time with ${how}`;
  if (quick > crashLoop) return { again: false, reason: `crash loop: ${times}` };
  const pause = Math.min(maxPause, minPause * 2 ** (quick - 1));
  return { again: true, pause, restarts: { quick, total: restarts.total + 1 } };
}

/** When an ill app was started again, with this time; undefined when it was too often. Times by one clock. */
function planIllRestart(times: readonly number[], now: number): number[] | undefined {
  const lately = times.filter((time) => now - time < hour);
  return lately.length < maxIllRestarts ? [...lately, now] : undefined;
}

// What launchfit decides, in random worlds: work fails, apps end and fall ill, people ask, launchfit is killed at any step.
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type Answer,
  type Effect,
  type Event,
  initial,
  next,
  type State,
  type Step,
} from "../../../lib/launch/next.ts";
import { byHand, failedBefore, type LauncherState } from "../../../lib/launch/state.ts";

type Happening = Event extends infer Each ? (Each extends Event ? Omit<Each, "at" | "clock"> : never) : never;

/** A random number from 0 to 1, the same series for the same seed. */
function numbers(seed: number) {
  let value = seed;
  return () => (value = (value * 1664525 + 1013904223) % 2 ** 32) / 2 ** 32;
}

/** A machine with a deploy directory, which does what `next` says. */
class World {
  readonly faults: string[] = [];
  readonly met = new Set<string>();
  /** The end of what happened, for a fault. */
  readonly log: string[] = [];
  /** Versions that hold up. */
  readonly good = new Set(["1"]);
  linked = "1";
  newest = 1;
  disk: LauncherState = {};
  state: State = initial(true);
  quit: number | undefined;
  /** The app, and the one beside it. */
  app: { pid: number; version: string } | undefined;
  beside: { pid: number; version: string } | undefined;
  readonly #random: () => number;
  #steps: readonly Step[] = [];
  #looks = false;
  #timer = false;
  #clock = 0;
  #pids = 100;
  #ids = 0;
  readonly #asked = new Set<number>();
  /** Who was not told, since launchfit was killed, does not count. */
  answers: Answer[] = [];

  constructor(random: () => number) {
    this.#random = random;
    for (const version of ["2", "3", "4", "5"]) if (random() < 0.5) this.good.add(version);
  }

  get isIdle(): boolean {
    return this.#steps.length === 0 && !this.#looks && !this.#timer;
  }

  get unanswered(): number {
    return this.#asked.size;
  }

  tell(happening: Happening): void {
    const before = this.state;
    this.#clock += 1000 * this.#random();
    const [after, effects] = next(before, { ...happening, at: `${this.#clock}`, clock: this.#clock } as Event);
    this.met.add(`${before.phase} ${happening.type}`);
    this.log.push(`${before.phase} ${JSON.stringify(happening)} -> ${after.phase} ${JSON.stringify(effects)}`);
    this.state = after;
    this.disk = after.memory;
    if (after.phase !== before.phase) this.#timer = false;
    for (const effect of effects) this.do(effect);
  }

  ask(type: "check" | "restart" | "rollback"): void {
    const id = ++this.#ids;
    this.#asked.add(id);
    this.tell({ type, id });
  }

  boot(): void {
    this.state = initial(true);
    this.#asked.clear();
    this.#steps = [];
    this.#looks = this.#timer = false;
    this.app = this.beside = undefined;
    this.log.push("BOOT");
    this.tell({ type: "boot", current: this.linked, memory: this.disk, sha256: {} });
  }

  private do(effect: Effect): void {
    if (effect.do === "work") {
      if (this.#steps.length > 0) this.fault("work is begun while other work is under way");
      this.#steps = effect.steps;
    } else if (effect.do === "look") {
      if (this.#looks) this.fault("looks twice at once");
      this.#looks = true;
    } else if (effect.do === "timer") this.#timer = true;
    else if (effect.do === "reply") {
      if (!this.#asked.delete(effect.id)) this.fault("who was told already, or did not ask, is told");
      this.answers.push(effect.answer);
    } else if (effect.do === "quit") {
      if (this.quit !== undefined) this.fault("quits twice");
      this.quit = effect.code;
    }
  }

  /** Something that is under way comes on. */
  turn(luck: number): void {
    const random = this.#random;
    const { app } = this;
    const choices: (() => void)[] = [];
    if (this.#steps.length > 0)
      choices.push(
        () => this.step(luck),
        () => this.step(luck),
      );
    if (this.#looks) choices.push(() => this.look(luck));
    if (this.#timer)
      choices.push(() => {
        this.#timer = false;
        this.tell({ type: "timer" });
      });
    if (app && random() < (this.good.has(app.version) ? luck / 10 : 0.5)) {
      if (random() < 0.7) this.end(app);
      else this.tell({ type: "ill", pid: app.pid, wrong: "it hangs", forever: true });
    } else choices[Math.floor(random() * choices.length)]?.();
  }

  private end(app: { pid: number }): void {
    this.app = undefined;
    const lived = this.#random() < 0.5 ? 10 : 100_000;
    this.tell({ type: "ended", pid: app.pid, how: "exit code 3", code: 3, lived, forever: true, follows: true });
  }

  private look(luck: number): void {
    const random = this.#random;
    this.#looks = false;
    if (random() < luck) return this.tell({ type: "looked", kind: "failed", reason: "no network", code: 1 });
    if (this.newest < 5 && random() < 0.6) this.newest += 1;
    const to = `${this.newest}`;
    const offered = { version: to, sha256: to };
    const nothing = to === this.linked || failedBefore(this.state.memory, offered) !== undefined;
    if (nothing)
      return this.tell({ type: "looked", kind: "nothing", version: this.linked, result: "up to date", offered });
    if (!this.good.has(to) && random() < 0.2) {
      const reason = "the hook before_symlink failed";
      return this.tell({ type: "looked", kind: "failed", reason, code: 1, to, isRelease: true, offered });
    }
    this.tell({ type: "looked", kind: "ready", to, overlap: random() < 0.5, sha256: {}, offered });
  }

  private step(luck: number): void {
    const random = this.#random;
    const [step, ...rest] = this.#steps;
    if (!step) return;
    const fail = (reason: string, byItself = false) => {
      this.#steps = [];
      this.tell({ type: "failed", step: step.do, reason, byItself, pid: this.app?.pid });
    };
    const isBad = (version = "") => (this.good.has(version) ? random() < luck / 5 : random() < 0.4);
    if (step.do === "read" && random() < luck / 5) return fail("a mistake in launchify.yml");
    if (step.do === "end") this.app = this.beside = undefined;
    if (step.do === "switch") {
      if (step.to !== this.linked && random() < luck / 5) return fail("no space left");
      this.linked = step.to;
    }
    if (step.do === "start") {
      if (this.app || this.beside) this.fault("started beside one that lives");
      if (step.version !== this.linked) this.fault(`${step.version} is started, but ${this.linked} is current`);
      if (isBad(step.version)) return fail("the hook before_start failed");
      this.app = { pid: ++this.#pids, version: step.version };
    }
    if (step.do === "beside") {
      if (!this.app) this.log.push("nothing to run beside");
      if (isBad(step.version)) return fail("it ended", random() < 0.5);
      this.beside = { pid: ++this.#pids, version: step.version };
    }
    if (step.do === "hand over") [this.app, this.beside] = [this.beside, undefined];
    if (step.do === "health" && (!this.app || isBad(this.app.version))) return fail("no good answer");
    if (step.do === "confirm" && (!this.app || isBad(this.app.version))) return fail("the hook after_restart failed");
    if (step.do === "choose") {
      const older = ["1", "2", "3", "4"].filter((each) => each < this.linked && !this.state.memory.failed?.[each]);
      const to = older.at(-1);
      if (to === undefined) return fail("there is no older version");
      this.#steps = [];
      const overlap = random() < 0.5;
      return this.tell({ type: "chosen", to, overlap, isRollback: true, asker: step.id, sha256: {} });
    }
    this.#steps = rest;
    if (rest.length === 0) this.tell({ type: "done", pid: this.app?.pid });
  }

  fault(what: string): void {
    this.faults.push(`${what}\n    ${this.log.slice(-8).join("\n    ")}`);
  }
}

function live(seed: number): World {
  const random = numbers(seed);
  const world = new World(random);
  world.boot();
  for (let turn = 0; turn < 150 && world.quit === undefined; turn++) {
    const luck = random();
    if (luck < 0.03) world.boot();
    else if (luck < 0.06) world.ask("check");
    else if (luck < 0.07) world.ask("restart");
    else if (luck < 0.08) world.ask("rollback");
    else world.turn(0.1);
  }
  const { good } = world;
  // what is good holds up from now on; what is bad ends until nothing bad runs
  for (let turn = 0; turn < 500 && world.quit === undefined; turn++) if (!world.isIdle || world.app) world.turn(0);
  const { state, app, linked } = world;
  if (world.quit === undefined) {
    // a bad one that is current since it could not be gone back from ends again and again
    const resting = good.has(linked) ? ["running", "given up"] : ["running", "given up", "waiting", "starting"];
    if (!resting.includes(state.phase)) world.fault(`it stays in ${state.phase}`);
    if (world.unanswered > 0) world.fault("somebody waits for ever");
    if (state.version !== linked) world.fault(`it takes ${state.version} for current, which is ${linked}`);
    if (state.phase === "running" && app?.version !== linked) world.fault(`${app?.version} runs, ${linked} is current`);
    if (state.phase === "running" && good.has(linked) && state.change) world.fault("a change is not over");
    if (state.phase !== "given up" && world.disk.pending) world.fault("a change is pending");
    world.tell({ type: "stop" });
    for (let turn = 0; turn < 100 && world.quit === undefined; turn++) world.turn(0);
    if (world.quit === undefined) world.fault("it does not end");
    if (world.app || world.beside) world.fault("it ends, and its app lives");
  }
  return world;
}

test("in thousands of random worlds one app runs, the version that is current; who asks is told once; and launchfit ends", () => {
  const met = new Set<string>();
  for (let seed = 1; seed <= 4000; seed++) {
    const world = live(seed);
    for (const each of world.met) met.add(each);
    assert.is(world.faults.length, 0, `world ${seed}: ${world.faults[0]}`);
  }
  assert.ok(met.size > 60, `${met.size} pairs of phase and event`);
});

/** After these events, from a start that went well. */
function after(...events: Happening[]) {
  let state = initial(true);
  let effects: Effect[] = [];
  const start: Happening[] = [
    { type: "boot", current: "1", memory: {}, sha256: {} },
    { type: "done", pid: 1 },
  ];
  for (const event of [...start, ...events])
    [state, effects] = next(state, { ...event, at: "2026-11-24T10:00:00Z", clock: 0 } as Event);
  return { state, effects, said: effects.flatMap((each) => (each.do === "say" ? [each.line] : [])) };
}
const stepsOf = (effects: readonly Effect[]) =>
  effects.flatMap((each) => (each.do === "work" ? each.steps.map((step) => step.do) : []));
const end = { type: "ended", pid: 1, how: "exit code 9", code: 9, lived: 10, follows: true } as const;
const change = (overlap: boolean): Happening => ({ type: "change", to: "2", overlap, asker: 7, sha256: { "2": "ab" } });

test("without forever launchfit ends with the app's exit code; with it the app is started after a pause", () => {
  assert.equal(after({ ...end, forever: false }).effects.at(-1), { do: "quit", code: 9 });
  const { state, effects } = after({ ...end, forever: true });
  assert.is(state.phase, "waiting");
  assert.equal(effects.at(-1), { do: "timer", ms: 1000 });
  assert.is(after({ ...end, pid: 4, forever: true }).state.phase, "running", "the end of one before it");
});

test("with overlap the new version is healthy beside the old one before the switch, without it the old one ends first", () => {
  assert.equal(stepsOf(after(change(true)).effects), ["record", "read", "beside", "switch", "hand over", "confirm"]);
  assert.equal(stepsOf(after(change(false)).effects), [
    "record",
    "read",
    "end",
    "switch",
    "start",
    "health",
    "confirm",
  ]);
  // one that cannot run beside another is tried alone; one that is unhealthy has changed nothing
  const failed = { type: "failed", step: "beside", reason: "exit code 1", pid: 1 } as const;
  const alone = after(change(true), { ...failed, byItself: true });
  assert.equal(stepsOf(alone.effects), ["record", "read", "end", "switch", "start", "health", "confirm"]);
  const { state, effects } = after(change(true), failed);
  assert.is(state.phase, "running");
  assert.is(state.version, "1");
  assert.is(state.memory.failed?.["2"]?.reason, "exit code 1");
  const error = "2 did not hold up: exit code 1; 1 runs on";
  assert.equal(effects, [{ do: "reply", id: 7, answer: { ok: false, code: 1, error } }]);
});

test("who asked for a change is told after it was watched; bad health until then undoes it, and it is not tried again", () => {
  const done = { type: "done", pid: 2 } as const;
  assert.equal(after(change(false), done).effects, [{ do: "timer", ms: "watch" }]);
  const good = after(change(false), done, { type: "timer" });
  assert.is(good.effects.find((each) => each.do === "reply")?.answer.ok, true);
  assert.is(good.state.memory.pending, undefined);
  const ill = { type: "ill", pid: 2, wrong: "status 500: no table", forever: false } as const;
  const { effects, state } = after(change(false), done, ill, { type: "done" }, { type: "done", pid: 3 });
  const error = "2 did not hold up: it was not healthy soon after its start: status 500: no table; 1 runs again";
  assert.equal(effects, [{ do: "reply", id: 7, answer: { ok: false, code: 1, error } }]);
  assert.equal(Object.keys(state.memory.failed ?? {}), ["2"]);
});

test("an app that stays unhealthy is started again five times within an hour, then left, which is said once", () => {
  const ill = { type: "ill", pid: 1, wrong: "no answer", forever: true } as const;
  const rounds = Array.from({ length: 5 }, () => [ill, { type: "done", pid: 1 } as const]).flat();
  assert.is(after(...rounds).state.restarts.total, 5);
  assert.match(after(...rounds, ill).said.join(), /was started again 5 times within an hour: it stays as it is/);
  assert.equal(after(...rounds, ill, ill).effects, []);
  assert.equal(after({ ...ill, forever: false }).effects, []);
});

test("what is rolled back by hand is not taken again, and a change that was killed after its switch is checked anew", () => {
  const chosen = { type: "chosen", to: "0", overlap: false, isRollback: true, asker: 8, sha256: {} } as const;
  const { state } = after({ type: "rollback", id: 8 }, chosen, { type: "done", pid: 2 }, { type: "timer" });
  assert.is(state.memory.failed?.["1"]?.reason, byHand);
  const back = after({ type: "rollback", id: 8 }, chosen, { type: "done", pid: 2 });
  assert.is(back.state.phase, "running", "what has held up before is not watched again: who asked is told at once");
  const boot = (current: string): Happening => ({
    type: "boot",
    current,
    memory: { pending: { from: "1", to: "2" } },
    sha256: {},
  });
  const [, switched] = next(initial(true), { ...boot("2"), at: "", clock: 0 } as Event);
  assert.equal(stepsOf(switched), ["start", "health", "confirm"]);
  const [before, not] = next(initial(true), { ...boot("1"), at: "", clock: 0 } as Event);
  assert.equal(stepsOf(not), ["start"]);
  assert.is(before.memory.pending, undefined);
});

test.run();

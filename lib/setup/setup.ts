import process from "node:process";
import { UsageError } from "../core/errors.ts";
import type { Terminal } from "../core/terminal.ts";
import { findOnPath } from "../exec/scripts.ts";
import { isRoot } from "../exec/users.ts";
import { acquireLock } from "../files/lock.ts";
import { completePath } from "./machine.ts";
import { hasSystemd } from "./service-steps.ts";
import { forRoot, type Note, noteOf, type Plan, type Step, type StepState } from "./step.ts";

/** setup: facts are read (machine.ts), a plan is made of them (plan-*.ts: pure), shown, and done here. */

export { checkMachine } from "./check.ts";
export type { Forge } from "./forge.ts";
export { readFacts } from "./machine.ts";
export { findNewer, handOver, isOwnFolder } from "./newer-scripts.ts";
export { busNotes, planBus, planBusUser, planBusUserRemoved } from "./plan-bus.ts";
export { planRemoval, type Removable } from "./plan-remove.ts";
export { planRepo, repoNotes } from "./plan-repo.ts";
export { planApp, planServer } from "./plan-server.ts";
export { planSlave } from "./plan-slave.ts";
export { planLeftovers, planUpgrade } from "./upgrade.ts";

export interface SetupOptions {
  root: string;
  dryRun: boolean;
  terminal: Terminal;
  /** Asked when there is something to do; false: leave all as it is. */
  confirm: () => Promise<boolean>;
  /** The last words, which depend on the paths that were made: notes after the plan's own. */
  closing?: (made: ReadonlySet<string>) => Promise<Note[]>;
  signal: AbortSignal;
}

/**
 * One setup at a time: what is read from now on stays so until this process ends.
 * @throws {Busy} when another setup works here, or waits for an answer.
 */
export async function lockMachine(root: string): Promise<void> {
  if (root === "/" && isRoot()) await acquireLock("/run/boatyard-setup.lock", { what: "setup", secluded: true });
}

/**
 * Show the plan, do what is missing, say what is left to people.
 * @returns 0
 * @throws {UsageError} when it is not root's machine to change, or a program is missing
 * @throws {Refused} when something of another's is in the way; nothing was changed
 * @throws {Failure} when a step cannot be done; those before it are.
 */
export async function setUp(plan: Plan, options: SetupOptions): Promise<number> {
  const { root, terminal, dryRun } = options;
  completePath();
  // folders that are made on the way to a file are everybody's to pass, whatever root's shell has set
  process.umask(0o022);
  const { steps, notes, heading = [], warnings = [], nothing } = await fitted(plan, root);
  const states: StepState[] = [];
  for (const step of steps) states.push(await step.look(root));
  const open = steps.filter((_, at) => states[at] !== "ready");
  // cron wants to hear of changes only
  for (const line of terminal.quiet && open.length === 0 ? [] : heading) terminal.print(line);
  show(steps, states, terminal);
  for (const warning of warnings) terminal.warn(warning);
  const missing = root === "/" ? await missingPrograms(open, plan.needs) : undefined;
  if (dryRun && missing !== undefined) terminal.warn(missing);
  if (!dryRun && open.length > 0) {
    if (root === "/" && !isRoot())
      throw new UsageError("only root can do this; say sudo setup …, or --root DIR, or --dry-run");
    if (missing !== undefined) throw new UsageError(`${missing}; nothing was changed`);
    if (!(await options.confirm())) {
      terminal.note("nothing was changed");
      return 0;
    }
  }
  const made = new Set<string>();
  const toCompare: string[] = [];
  let failed: unknown;
  let changed = 0;
  for (const step of dryRun ? [] : steps) {
    options.signal.throwIfAborted();
    try {
      // a step before may have changed what this one finds
      const state = await step.look(root);
      if (state === "ready") continue;
      const line = await step.perform(root);
      changed += 1;
      if (state === "make" && step.path !== undefined) made.add(step.path);
      if (line !== undefined) toCompare.push(line);
      terminal.note(`${terminal.paintNote.green("done")}  ${step.what}`);
    } catch (error) {
      terminal.note(`${terminal.paintNote.red("failed")}  ${step.what}`);
      failed = error;
      break;
    }
  }
  const closing = dryRun ? [] : ((await options.closing?.(made)) ?? []);
  const next = failed === undefined ? notes : [];
  const last = [...noteOf("To compare", toCompare), ...next, ...closing];
  terminal.printJson({
    root,
    ...(heading.length === 0 ? {} : { versions: heading }),
    steps: steps.map(({ what, why }, at) => ({
      step: what,
      why,
      state: states[at],
    })),
    changed,
    notes: last,
  });
  for (const { title, lines } of terminal.quiet && open.length === 0 ? [] : last) {
    terminal.print(`\n${terminal.paint.bold(title)}`);
    for (const line of lines) terminal.print(`  ${line}`);
  }
  if (failed !== undefined) throw failed;
  if (!dryRun)
    terminal.note(
      changed === 0 ? (nothing ?? "nothing was missing") : changed === 1 ? "1 step done" : `${changed} steps done`,
    );
  return 0;
}

/** The plan as it can be done here: under another root, or on a machine without systemd, some is left to people. */
async function fitted(plan: Plan, root: string): Promise<Plan> {
  if (root !== "/") return forRoot(plan);
  if (await hasSystemd()) return plan;
  const later = plan.steps.flatMap(({ systemd, byHand }) => (systemd ? (byHand?.() ?? []) : []));
  return {
    ...plan,
    steps: plan.steps.filter(({ systemd }) => !systemd),
    notes: [...noteOf("Once systemd runs", later), ...plan.notes],
  };
}

/** Debian's packages of the programs that steps run, where their names differ. */
const packages: Readonly<Record<string, string>> = {
  flock: "util-linux",
  setpriv: "util-linux",
  ssh: "openssh-client",
  "ssh-keygen": "openssh-client",
  "ssh-keyscan": "openssh-client",
  useradd: "passwd",
  userdel: "passwd",
  node: "nodejs",
};

/** Which programs the steps need that are not here, and the command that installs them; undefined: none. */
async function missingPrograms(open: readonly Step[], needs: readonly string[] = []): Promise<string | undefined> {
  if (open.length === 0) return undefined;
  const needed = [...new Set([...needs, ...open.flatMap((step) => step.needs ?? [])])].sort();
  const missing: string[] = [];
  for (const name of needed) if (!(await findOnPath(name))) missing.push(name);
  if (missing.length === 0) return undefined;
  const from = new Set(missing.map((name) => packages[name] ?? name));
  const are = missing.length === 1 ? "is" : "are";
  return `${missing.join(", ")} ${are} not installed: apt-get install ${[...from].join(" ")}`;
}

function show(steps: readonly Step[], states: readonly StepState[], terminal: Terminal): void {
  const { paint, quiet } = terminal;
  const word = {
    ready: paint.dim("ready"),
    make: paint.green("make"),
    replace: paint.yellow("replace"),
    fix: paint.yellow("fix"),
    remove: paint.red("remove"),
  };
  const rows = steps.flatMap(({ what, why }, index) => {
    const state = states[index] ?? "make";
    if (quiet && state === "ready") return [];
    return [[word[state], what, paint.dim(why)]];
  });
  for (const line of terminal.table(rows)) terminal.print(line);
}

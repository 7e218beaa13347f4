import type { Terminal } from "../cli/terminal.ts";
import { UsageError } from "../core/errors.ts";
import { isRoot } from "../exec/users.ts";
import { copy, edit, file, folder, link, secret } from "./file-steps.ts";
import { hasSystemd } from "./machine.ts";
import type { Note, Plan, Step, StepKind, StepState } from "./step.ts";
import { enable, reload, restart } from "./unit-steps.ts";
import { account, clone, hostKey, install, key } from "./user-steps.ts";

/** setup: facts are read (machine.ts), a plan is made of them (plan-*.ts: pure), shown, and done here. */

export { checkMachine } from "./check.ts";
export type { Forge } from "./forge.ts";
export { readFacts } from "./machine.ts";
export { planApp } from "./plan-app.ts";
export { planRepo, repoNotes } from "./plan-repo.ts";
export { planServer } from "./plan-server.ts";
export { planSlave } from "./plan-slave.ts";

const kinds: { [K in Step["kind"]]: StepKind<Step & { kind: K }> } = {
  ...{ account, folder, file, secret, edit, copy, link, key, "host-key": hostKey },
  ...{ clone, install, reload, enable, restart },
};

function kindOf(step: Step): StepKind<Step> {
  return kinds[step.kind] as StepKind<Step>;
}

/** One line for a step, as the plan shows it. */
export function describe(step: Step): string {
  return kindOf(step).describe(step);
}

export interface SetupOptions {
  root: string;
  dryRun: boolean;
  terminal: Terminal;
  /** Asked when there is something to do; false: leave all as it is. */
  confirm: () => Promise<boolean>;
  /** The last words, which depend on what was made: notes after the plan's own. */
  closing?: (made: ReadonlyMap<string, string>) => Promise<Note[]>;
  signal: AbortSignal;
}

/**
 * Show the plan, do what is missing, say what is left to people.
 * @returns 0
 * @throws {UsageError} when it is not root's machine to change
 * @throws {Failure} when a step cannot be done; those before it are.
 */
export async function setUp(plan: Plan, options: SetupOptions): Promise<number> {
  const { root, terminal, dryRun } = options;
  const { steps, notes } = await fitted(plan, root);
  const states: StepState[] = [];
  for (const step of steps) states.push(await kindOf(step).look(step, root));
  show(steps, states, terminal);
  const open = states.filter((state) => state !== "ready").length;
  if (!dryRun && open > 0) {
    if (root === "/" && !isRoot())
      throw new UsageError("only root can do this; say sudo setup …, or --root DIR, or --dry-run");
    if (!(await options.confirm())) {
      terminal.note("nothing was changed");
      return 0;
    }
  }
  const made = new Map<string, string>();
  const toCompare: string[] = [];
  let failed: unknown;
  let changed = 0;
  for (const step of dryRun ? [] : steps) {
    options.signal.throwIfAborted();
    try {
      // a step before may have changed what this one finds
      if ((await kindOf(step).look(step, root)) === "ready") continue;
      const done = (await kindOf(step).perform(step, root)) ?? {};
      changed += 1;
      if (done.secret !== undefined && "path" in step) made.set(step.path, done.secret);
      toCompare.push(...(done.notes ?? []));
      terminal.note(`${terminal.paintNote.green("done")}  ${describe(step)}`);
    } catch (error) {
      failed = error;
      break;
    }
  }
  const closing = dryRun ? [] : ((await options.closing?.(made)) ?? []);
  const last = [...noteOf("To compare", toCompare), ...notes, ...closing];
  terminal.printJson({
    root,
    // programs know the older word
    steps: steps.map((step, at) => ({
      step: describe(step),
      why: step.why,
      state: states[at] === "fix" ? "mend" : states[at],
    })),
    changed,
    notes: last,
  });
  for (const { title, lines } of terminal.quiet && open === 0 ? [] : last) {
    terminal.print(`\n${terminal.paint.bold(title)}`);
    for (const line of lines) terminal.print(`  ${line}`);
  }
  if (failed !== undefined) throw failed;
  if (!dryRun)
    terminal.note(
      changed === 0
        ? "nothing was missing"
        : changed === 1
          ? "1 step done"
          : `${changed} steps done`,
    );
  return 0;
}

/** The plan as it can be done here: under another root, or on a machine without systemd, some is left to people. */
async function fitted(plan: Plan, root: string): Promise<Plan> {
  if (root !== "/") return forRoot(plan);
  if (await hasSystemd()) return plan;
  const needsSystemd = ({ kind }: Step) => ["reload", "enable", "restart"].includes(kind);
  const later = plan.steps.filter(needsSystemd).flatMap(byHand);
  return {
    steps: plan.steps.filter((step) => !needsSystemd(step)),
    notes: [...noteOf("Once systemd runs", later), ...plan.notes],
  };
}

/**
 * A plan for another root, where no program of that system can run: accounts become sysusers.d(5) files, owners
 * tmpfiles.d(5) lines that systemd applies at its first boot, and the rest a list for the live system. Pure.
 */
export function forRoot({ steps, notes }: Plan): Plan {
  const later = steps.filter((step) => !kindOf(step).underRoot).flatMap(byHand);
  return {
    steps: steps.flatMap((step) => kindOf(step).underRoot?.(step) ?? []),
    notes: [...noteOf("On the live system, once it has booted", later), ...notes],
  };
}

/** The command lines that do a step, for a person. */
export function byHand(step: Step): string[] {
  return kindOf(step).byHand?.(step) ?? [];
}

function noteOf(title: string, lines: string[]): Note[] {
  return lines.length > 0 ? [{ title, lines }] : [];
}

function show(steps: readonly Step[], states: readonly StepState[], terminal: Terminal): void {
  const { paint, quiet } = terminal;
  const word = {
    ready: paint.dim("ready"),
    make: paint.green("make"),
    replace: paint.yellow("replace"),
    fix: paint.yellow("fix"),
  };
  // cron wants to hear of changes only
  const rows = steps.flatMap((step, index) => {
    const state = states[index] ?? "make";
    if (quiet && state === "ready") return [];
    return [[word[state], describe(step), paint.dim(step.why)]];
  });
  for (const line of terminal.table(rows)) terminal.print(line);
}

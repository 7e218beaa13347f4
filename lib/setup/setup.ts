import { isRoot } from "../exec/as-user.ts";
import { UsageError } from "../core/errors.ts";
import type { Terminal } from "../cli/terminal.ts";
import { hasSystemd } from "./machine.ts";
import { type Done, perform } from "./perform.ts";
import { commands, forRoot } from "./root.ts";
import { describe, type Note, type Plan, type Step, type Survey } from "./step.ts";
import { survey } from "./survey.ts";

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

/** Show the plan, do what is missing, say what is left to people. */
export async function setUp(plan: Plan, options: SetupOptions): Promise<number> {
  const { root, terminal, dryRun } = options;
  const { steps, notes } = await fitted(plan, root);
  const states: Survey[] = [];
  for (const step of steps) states.push(await survey(step, root));
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
  const said: string[] = [];
  let failed: unknown;
  let changed = 0;
  for (const step of dryRun ? [] : steps) {
    options.signal.throwIfAborted();
    try {
      // a step before may have changed what this one finds
      if ((await survey(step, root)) === "ready") continue;
      const done: Done = await perform(step, root);
      changed += 1;
      if (done.secret !== undefined && "path" in step) made.set(step.path, done.secret);
      said.push(...(done.notes ?? []));
      terminal.note(`${terminal.paintNote.green("done")}  ${describe(step)}`);
    } catch (error) {
      failed = error;
      break;
    }
  }
  const closing = dryRun ? [] : ((await options.closing?.(made)) ?? []);
  const last = [
    ...(said.length > 0 ? [{ title: "To compare", lines: said }] : []),
    ...notes,
    ...closing,
  ];
  terminal.printJson({
    root,
    steps: steps.map((step, index) => ({
      step: describe(step),
      why: step.why,
      state: states[index],
    })),
    changed,
    notes: last,
  });
  for (const { title, lines } of terminal.quiet && open === 0 ? [] : last) {
    terminal.print(`\n${terminal.paint.bold(title)}`);
    for (const line of lines) terminal.print(`  ${line}`);
  }
  if (failed !== undefined) throw failed;
  if (!dryRun) terminal.note(changed === 0 ? "nothing was missing" : `${changed} steps done`);
  return 0;
}

/** The plan as it can be done here: under another root, or on a machine without systemd, some is left to people. */
async function fitted(plan: Plan, root: string): Promise<Plan> {
  if (root !== "/") return forRoot(plan);
  if (await hasSystemd()) return plan;
  const needs = (step: Step) => ["reload", "enable", "restart"].includes(step.kind);
  const later = plan.steps.filter(needs).flatMap(commands);
  const note: Note = { title: "Once systemd runs", lines: later };
  return {
    steps: plan.steps.filter((step) => !needs(step)),
    notes: later.length > 0 ? [note, ...plan.notes] : plan.notes,
  };
}

function show(steps: readonly Step[], states: readonly Survey[], terminal: Terminal): void {
  const { paint, quiet } = terminal;
  const word = {
    ready: paint.dim("ready"),
    make: paint.green("make"),
    replace: paint.yellow("replace"),
    mend: paint.yellow("mend"),
  };
  // cron wants to hear of changes only
  const rows = steps.flatMap((step, index) => {
    const state = states[index] ?? "make";
    if (quiet && state === "ready") return [];
    return [[word[state], describe(step), paint.dim(step.why)]];
  });
  for (const line of terminal.table(rows)) terminal.print(line);
}

import { join } from "node:path";
import process from "node:process";
import { UsageError } from "../core/errors.ts";
import type { Terminal } from "../core/terminal.ts";
import { isRoot } from "../exec/users.ts";
import { exists } from "../files/files.ts";
import { acquireLock } from "../files/lock.ts";
import type { Item, ItemState } from "../items/items.ts";
import { hasSystemd } from "../items/services.ts";
import { completePath, type Facts, missingPrograms, type Note, type Plan } from "./machine.ts";

/** setup: the machine is looked at (machine.ts), a plan is a list of items (plan-*.ts), shown, and made here. */

export { checkMachine } from "./check.ts";
export type { Forge } from "./forge.ts";
export { type Facts, readFacts } from "./machine.ts";
export { busNotes, planBus, planBusUser, planBusUserRemoved } from "./plan-bus.ts";
export { planRemoval, type Removable } from "./plan-remove.ts";
export { checkTime, planRepo, repoNotes } from "./plan-repo.ts";
export { planApp, planServer } from "./plan-server.ts";
export { planSlave } from "./plan-slave.ts";

export interface SetupOptions {
  facts: Facts;
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
 * Show what is missing, make it, say what is left to people.
 * @returns 0
 * @throws {UsageError} when it is not root's machine to change, or a program is missing
 * @throws {Refused} when something of another's is in the way; nothing was changed
 * @throws {Failure} when an item cannot be made; those before it are.
 */
export async function setUp(plan: Plan, options: SetupOptions): Promise<number> {
  const { facts, terminal, dryRun } = options;
  const { root } = facts;
  if (root === "/" && !isRoot() && !dryRun)
    throw new UsageError("only root can do this; say sudo setup …, or --root DIR, or --dry-run");
  completePath();
  // folders that are made on the way to a file are everybody's to pass, whatever root's shell has set
  process.umask(0o022);
  const { items, later } = await fitted(plan, root);
  const states: ItemState[] = [];
  for (const item of items) states.push(await item.look(root));
  const open = items.filter((_, at) => states[at] !== "ready");
  const missing = await missingThings(plan, open, facts);
  if (missing !== undefined && !dryRun) throw new UsageError(`${missing}; nothing was changed`);
  const notes = [...later, ...plan.notes];
  if (!terminal.quiet || open.length > 0) show(items, states, terminal);
  for (const warning of [...(plan.warnings ?? []), ...(missing === undefined ? [] : [missing])]) terminal.warn(warning);
  if (!dryRun && open.length > 0 && !(await options.confirm())) {
    terminal.note("nothing was changed");
    return 0;
  }
  const made = new Set<string>();
  const toCompare: string[] = [];
  let failed: unknown;
  let changed = 0;
  for (const item of dryRun ? [] : items) {
    options.signal.throwIfAborted();
    try {
      // an item before may have changed what this one finds
      const state = await item.look(root);
      if (state === "ready") continue;
      const line = await item.make(root);
      changed += 1;
      if (state === "make" && item.path !== undefined) made.add(item.path);
      if (typeof line === "string") toCompare.push(line);
      terminal.note(`${terminal.paintNote.green("done")}  ${item.what}`);
    } catch (error) {
      terminal.note(`${terminal.paintNote.red("failed")}  ${item.what}`);
      failed = error;
      break;
    }
  }
  const closing = dryRun ? [] : ((await options.closing?.(made)) ?? []);
  const compare = toCompare.length > 0 ? [{ title: "To compare", lines: toCompare }] : [];
  const last = [...compare, ...(failed === undefined ? notes : []), ...closing];
  const steps = items.map(({ what, why }, at) => ({ step: what, why, state: states[at] }));
  terminal.printJson({ root, steps, changed, notes: last });
  for (const { title, lines } of terminal.quiet && open.length === 0 ? [] : last) {
    terminal.print(`\n${terminal.paint.bold(title)}`);
    for (const line of lines) terminal.print(`  ${line}`);
  }
  if (failed !== undefined) throw failed;
  if (!dryRun)
    terminal.note(
      changed === 0 ? (plan.nothing ?? "nothing was missing") : changed === 1 ? "1 step done" : `${changed} steps done`,
    );
  return 0;
}

/** What can be made here: below another root, or on a machine without systemd, some is left to people. */
async function fitted({ items }: Plan, root: string): Promise<{ items: Item[]; later: Note[] }> {
  if (root === "/" && (await hasSystemd())) return { items, later: [] };
  const isLater = ({ live, systemd }: Item) => (root === "/" ? systemd === true : live !== undefined);
  const lines = [...new Set(items.filter(isLater).flatMap(({ live }) => live ?? []))];
  const title = root === "/" ? "Once systemd runs" : "On the live system, once it has booted";
  return { items: items.filter((item) => !isLater(item)), later: lines.length > 0 ? [{ title, lines }] : [] };
}

/** What is missing that nothing here makes: scripts where units may start them, and programs; undefined: nothing. */
async function missingThings(plan: Plan, open: readonly Item[], { root, scripts }: Facts): Promise<string | undefined> {
  if (open.length === 0 || root !== "/") return undefined;
  if (plan.scripts && scripts.problem !== undefined) return scripts.problem;
  for (const name of plan.scripts ?? [])
    if (!(await exists(join(scripts.folder, `${name}.mjs`)))) return `${name}.mjs is not beside setup; put it there`;
  return await missingPrograms([...(plan.needs ?? []), ...open.flatMap((item) => item.needs ?? [])]);
}

/** What will be done; what is ready is one line. */
function show(items: readonly Item[], states: readonly ItemState[], terminal: Terminal): void {
  const { paint, quiet } = terminal;
  const word = {
    ready: paint.dim("ready"),
    make: paint.green("make"),
    replace: paint.yellow("replace"),
    fix: paint.yellow("fix"),
    remove: paint.red("remove"),
  };
  const rows = items.flatMap(({ what, why }, index) => {
    const state = states[index] ?? "make";
    return state === "ready" ? [] : [[word[state], what, paint.dim(why)]];
  });
  const ready = states.filter((state) => state === "ready").length;
  if (ready > 0 && !quiet) terminal.print(`${word.ready}  ${ready} of ${items.length}`);
  for (const line of terminal.table(rows)) terminal.print(line);
}

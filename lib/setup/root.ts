import { hasSystemd } from "./machine.ts";
import type { Note, Plan, Step } from "./step.ts";

/** What of a plan can be done on this machine, or below another root; the rest is left to people. */

/** The plan as it can be done here: under another root, or on a machine without systemd, some is left to people. */
export async function fitted(plan: Plan, root: string): Promise<Plan> {
  if (root !== "/") return forRoot(plan);
  if (await hasSystemd()) return plan;
  const later = plan.steps.filter(({ systemd }) => systemd).flatMap(byHand);
  return {
    ...plan,
    steps: plan.steps.filter(({ systemd }) => !systemd),
    notes: [...noteOf("Once systemd runs", later), ...plan.notes],
  };
}

/**
 * A plan for another root, where no program of that system can run: accounts become sysusers.d(5) files, owners
 * tmpfiles.d(5) lines that systemd applies at its first boot, and the rest a list for the live system. Pure.
 */
export function forRoot(plan: Plan): Plan {
  const later = plan.steps.filter(({ underRoot }) => !underRoot).flatMap(byHand);
  return {
    ...plan,
    steps: plan.steps.flatMap((step) => step.underRoot?.() ?? []),
    notes: [...noteOf("On the live system, once it has booted", later), ...plan.notes],
  };
}

/** The command lines that do a step, for a person. */
function byHand(step: Step): string[] {
  return step.byHand?.() ?? [];
}

/** A note, unless there is nothing to say. */
export function noteOf(title: string, lines: string[]): Note[] {
  return lines.length > 0 ? [{ title, lines }] : [];
}

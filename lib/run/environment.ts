import process from "node:process";
import { accountVariables, cleanEnvironment } from "../exec/exec.ts";

/**
 * The environment of a run's stages: the clean one, what tells of the event (HOOK_*, RELEASE_*), and what
 * cron, systemd and `env -i` leave out.
 */
export function stageEnvironment(): Record<string, string> {
  const env = cleanEnvironment(accountVariables());
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && /^(?:HOOK|RELEASE)_[A-Z0-9_]+$/.test(name)) env[name] = value;
  }
  if (!env.LANG && !env.LC_ALL) env.LANG = "C.UTF-8";
  return env;
}

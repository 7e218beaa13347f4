import { userInfo } from "node:os";
import process from "node:process";
import { cleanEnvironment } from "../exec/exec.ts";

/**
 * The environment of a run's stages: the clean one, what tells of the event (HOOK_*, RELEASE_*), and what
 * cron, systemd and `env -i` leave out.
 */
export function stageEnvironment(): Record<string, string> {
  const env = cleanEnvironment();
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && /^(?:HOOK|RELEASE)_[A-Z0-9_]+$/.test(name)) env[name] = value;
  }
  const me = account();
  env.HOME ||= me?.homedir ?? "/";
  if (me) {
    env.USER ||= me.username;
    env.LOGNAME ||= me.username;
  }
  if (!env.LANG && !env.LC_ALL) env.LANG = "C.UTF-8";
  return env;
}

/** A container may run under a number that has no account. */
function account() {
  try {
    return userInfo();
  } catch {
    return undefined;
  }
}

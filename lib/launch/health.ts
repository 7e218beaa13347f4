import { messageOf, systemCode } from "../core/errors.ts";
import { shell } from "../exec/exec.ts";
import { request } from "../fetch/fetch.ts";

/** How a new app proves itself (design, section 11, `app.health`). */
export interface HealthCheck {
  /** A URL that must answer 2xx or 3xx, or a command that must exit 0; none: it is enough to stay alive. */
  url?: string | undefined;
  command?: string | undefined;
  /** Milliseconds within which it must answer after a start. */
  within: number;
  /** Milliseconds that one answer may take. */
  timeout: number;
  /** Milliseconds between two questions while the app runs. */
  every: number;
}

const pauseBetween = 25;

/**
 * Wait until the app answers.
 * @param gone settles when the app has ended: then there is nothing more to wait for.
 * @returns undefined when it is well, else the reason.
 */
export async function awaitHealth(
  check: HealthCheck,
  {
    gone,
    cwd,
    env,
    signal,
  }: {
    gone: Promise<{ how: string }>;
    cwd: string;
    env: Record<string, string>;
    /** Aborting it ends the waiting with a reason. */
    signal: AbortSignal;
  },
): Promise<string | undefined> {
  // the clock of the day may jump meanwhile
  const deadline = performance.now() + check.within;
  const aborted = new Promise<void>((resolve) =>
    signal.addEventListener("abort", () => resolve(), { once: true }),
  );
  let ended: string | undefined;
  void gone.then(({ how }) => {
    ended = how;
  });
  let last = "no answer";
  if (check.url === undefined && check.command === undefined) {
    await Promise.race([gone, aborted, pause(check.within)]);
    if (signal.aborted) return "nobody waits for it any more";
    return ended === undefined ? undefined : `it ended with ${ended}`;
  }
  while (ended === undefined) {
    if (signal.aborted) return "nobody waits for it any more";
    const left = deadline - performance.now();
    if (left <= 0) return `no good answer within ${check.within / 1000} s: ${last}`;
    const patience = Math.min(left, check.timeout);
    const wrong = await Promise.race([
      ask(check, { patience, cwd, env }),
      gone.then(() => "it ended"),
    ]);
    // the app must still live when the answer is believed
    if (wrong === undefined && ended === undefined) return undefined;
    last = wrong ?? last;
    await Promise.race([pause(Math.min(pauseBetween, Math.max(0, left))), gone]);
  }
  return `it ended with ${ended}`;
}

/** One question; undefined when the answer is good. */
export function ask(
  { url, command }: Pick<HealthCheck, "url" | "command">,
  { patience, cwd, env }: { patience: number; cwd: string; env: Record<string, string> },
): Promise<string | undefined> {
  return url === undefined
    ? askCommand(command ?? "true", patience, cwd, env)
    : askUrl(url, patience);
}

async function askCommand(
  command: string,
  patience: number,
  cwd: string,
  env: Record<string, string>,
): Promise<string | undefined> {
  const { code, timedOut } = await shell(command, {
    cwd,
    env,
    timeout: patience,
    grace: 500,
    check: false,
  });
  if (timedOut) return "the health command took too long";
  return code === 0 ? undefined : `the health command ended with exit code ${code}`;
}

async function askUrl(url: string, patience: number): Promise<string | undefined> {
  try {
    // a connection of its own each time: one kept from the old app would answer for the new one
    const { status } = await request(url, { timeout: patience, maxBytes: 0 });
    return status >= 200 && status < 400 ? undefined : `status ${status}`;
  } catch (error) {
    return systemCode(error) ?? messageOf(error);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

import { setTimeout as sleep } from "node:timers/promises";
import { cleanLine } from "../core/clean.ts";
import { messageOf, systemCode } from "../core/errors.ts";
import { sh, timedOut } from "../exec/exec.ts";
import { request } from "../fetch/fetch.ts";
import type { HealthCheck } from "./config.ts";
import type { AppEnd } from "./app.ts";

/** Milliseconds between two questions while a new app starts. */
const pauseBetween = 10;
/** Bytes of a bad answer that are told. */
const maxBody = 300;

/** How an app is asked. */
export interface Question {
  check: HealthCheck;
  cwd: string;
  env: Record<string, string>;
  /** A port of its own, in place of the URL's host and port, for a version that may run beside another. */
  port?: number | undefined;
}

/**
 * Wait until a new app is healthy.
 * @param gone settles when the app has ended: then there is nothing more to wait for.
 * @returns undefined when it is healthy, else what is wrong.
 */
export async function awaitHealth(
  question: Question,
  {
    gone,
    signal,
    ask = askHealth,
  }: { gone: Promise<Pick<AppEnd, "how">>; signal: AbortSignal; ask?: typeof askHealth },
): Promise<string | undefined> {
  const { check } = question;
  // the clock of the day may jump meanwhile
  const deadline = performance.now() + check.within;
  let over: string | undefined;
  const end = gone.then(({ how }) => (over ??= `it ended with ${how}`));
  const abort = new Promise<string>((resolve) =>
    signal.addEventListener("abort", () => resolve((over ??= "launchfit is ending")), { once: true }),
  );
  const orOver = <T>(work: Promise<T>) => Promise.race([work, end, abort]);
  if (check.url === undefined && check.command === undefined) {
    await orOver(sleep(check.within, undefined, { ref: false }));
    return over;
  }
  let reason = "no answer";
  while (over === undefined && !signal.aborted) {
    const left = deadline - performance.now();
    if (left <= 0) return `no good answer within ${check.within / 1000} s: ${reason}`;
    const wrong = await orOver(ask(question, Math.min(left, check.timeout)));
    // the app must still be alive when its answer counts
    if (wrong === undefined && over === undefined) return undefined;
    // a question that the deadline cuts short tells less than the one before it
    if (performance.now() < deadline || reason === "no answer") reason = wrong ?? reason;
    await orOver(sleep(Math.min(pauseBetween, Math.max(0, left))));
  }
  return over ?? "launchfit is ending";
}

/** One question; undefined when the answer is good, else what is wrong. */
export async function askHealth(
  { check: { url, command = "true" }, cwd, env, port }: Question,
  timeout: number,
): Promise<string | undefined> {
  if (url !== undefined) {
    if (port === undefined) return await askUrl(new URL(url), timeout);
    const { pathname, search } = new URL(url);
    const wrong = await askUrl(new URL(`http://127.0.0.1:${port}${pathname}${search}`), timeout);
    return wrong === "ECONNREFUSED"
      ? `${wrong}; with app.overlap the app must answer on 127.0.0.1, port LAUNCHFIT_HEALTH_PORT, too`
      : wrong;
  }
  const answer = await sh(command, { cwd, env, timeout, grace: 500, nothrow: true });
  if (timedOut(answer)) return "the health command took too long";
  const { exitCode, stdout, stderr } = answer;
  if (exitCode === 0) return undefined;
  return `the health command ended with exit code ${exitCode}${quoted(stdout + stderr)}`;
}

async function askUrl(url: URL, timeout: number): Promise<string | undefined> {
  try {
    // a connection of its own each time: one kept from the old app would answer for the new one
    const { status } = await request(url, { timeout, maxBytes: 0 });
    if (status >= 200 && status < 400) return undefined;
    // an answer that is good need not have an end; of a bad one the reason is worth another question
    const again = await request(url, { timeout: 1000, maxBytes: maxBody }).catch(() => undefined);
    return `status ${status}${again?.status === status ? quoted(again.text) : ""}`;
  } catch (error) {
    return systemCode(error) ?? messageOf(error);
  }
}

function quoted(text: string): string {
  const line = cleanLine(text.slice(0, maxBody));
  return line === "" ? "" : `: ${line}`;
}

/** The answers with which an app counts as healthy. */
export const healthyAnswers: readonly string[] = ["well", "alive", "starting", "not asked yet"];

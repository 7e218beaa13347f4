// Runs the scripts as a user would: as processes, under the runtime that the tests run under,
// from source or, with BOATYARD_TEST_DIST=1, from the bundles.
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { current, root } from "./runtime.ts";
import { slowness, waitFor } from "./wait.ts";

export type RunOptions = {
  cwd?: string;
  /** Added to a small environment (PATH, HOME, TMPDIR, LANG, the runtimes' caches); undefined removes a variable. */
  env?: Record<string, string | undefined>;
  /** Start from an empty environment instead: then `env` is all that the process gets (and Deno its packages). */
  bare?: boolean;
  input?: string | Uint8Array;
  /** Milliseconds of an idle machine after which the process is killed and the call fails; default 30,000. */
  timeout?: number;
  /** The exit code that must come; any other fails the call with the whole output. */
  expect?: number;
};

export type RunResult = {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
};

/** A long-lived process, such as a server. */
export type Running = {
  pid: number;
  child: ChildProcess;
  stdout: () => string;
  stderr: () => string;
  /** Both streams, in the order in which they came. */
  output: () => string;
  /** Waits until the output matches, and fails when the process ends first. */
  until: (what: RegExp | ((output: string) => unknown), options?: { timeout?: number }) => Promise<RegExpExecArray>;
  kill: (signal?: NodeJS.Signals) => void;
  /** Sends TERM (or `signal`) and waits for the end; KILL after 10 s of an idle machine. */
  stop: (signal?: NodeJS.Signals) => Promise<RunResult>;
  exited: Promise<RunResult>;
};

/** The command line that runs a script of ours. */
export function scriptArgv(name: string): string[] {
  const dist = process.env["BOATYARD_TEST_DIST"] === "1";
  return current.argv(join(root, dist ? `dist/${name}.mjs` : `scripts/${name}.ts`));
}

/** Runs `scripts/NAME` to its end. */
export function runScript(name: string, args: string[] = [], options: RunOptions = {}): Promise<RunResult> {
  return runCommand([...scriptArgv(name), ...args], options);
}

/** Starts `scripts/NAME` and leaves it running; it is killed when the test file ends. */
export function startScript(
  name: string,
  args: string[] = [],
  options: Omit<RunOptions, "timeout" | "expect"> = {},
): Running {
  return startCommand([...scriptArgv(name), ...args], options);
}

/** How many milliseconds something takes: so that a kill falls within it, however quick the machine and the runtime. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

/** Runs any command to its end. */
export async function runCommand(argv: string[], options: RunOptions = {}): Promise<RunResult> {
  const { expect } = options;
  const timeout = Math.round((options.timeout ?? 30_000) * slowness());
  const running = startCommand(argv, options);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    running.kill("SIGKILL");
  }, timeout);
  const result = await running.exited.finally(() => clearTimeout(timer));
  if (late || (expect !== undefined && result.code !== expect)) {
    const ending = late ? `had not ended after ${timeout} ms` : `exited ${result.code}`;
    throw new Error(
      `${argv.join(" ")}: ${ending}${expect === undefined ? "" : `, not ${expect}`}\n` +
        `--- stdout\n${result.stdout}\n--- stderr\n${result.stderr}`,
    );
  }
  return result;
}

const alive = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

/** Starts any command and leaves it running; it is killed when the test file ends. */
export function startCommand(argv: string[], options: RunOptions = {}): Running {
  const [file = "", ...args] = argv;
  const child = spawn(file, args, {
    cwd: options.cwd,
    env: environment(options),
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
  });
  alive.add(child);
  const texts = { stdout: "", stderr: "", output: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (text: string) => {
      texts[name] += text;
      texts.output += text;
    });
  }
  if (options.input !== undefined) {
    child.stdin?.on("error", () => {}); // the process may end without reading it
    child.stdin?.end(options.input);
  }
  let ended = false;
  const exited = new Promise<RunResult>((resolve, reject) => {
    child.on("error", (error) => {
      alive.delete(child);
      ended = true;
      reject(error);
    });
    child.on("close", (code, signal) => {
      alive.delete(child);
      ended = true;
      resolve({ code, signal, stdout: texts.stdout, stderr: texts.stderr });
    });
  });
  exited.catch(() => {}); // reported to whoever awaits it
  return {
    pid: child.pid ?? -1,
    child,
    exited,
    stdout: () => texts.stdout,
    stderr: () => texts.stderr,
    output: () => texts.output,
    async until(what, { timeout = 20_000 } = {}) {
      const find = () =>
        what instanceof RegExp
          ? new RegExp(what.source, what.flags.replace(/[gy]/g, "")).exec(texts.output)
          : what(texts.output);
      const name = `${argv.join(" ")} to print ${what}`;
      const found = await waitFor(() => find() || (ended && "ended"), {
        timeout,
        what: () => `${name}; so far:\n${texts.output}`,
      });
      const match = find() || (found !== "ended" && found);
      if (!match) throw new Error(`the process ended before ${name}:\n${texts.output}`);
      return match as RegExpExecArray;
    },
    kill: (signal = "SIGTERM") => sendSignal(child, signal),
    async stop(signal = "SIGTERM") {
      sendSignal(child, signal);
      const timer = setTimeout(() => child.kill("SIGKILL"), 10_000 * slowness());
      return await exited.finally(() => clearTimeout(timer));
    },
  };
}

/** Not by `child.kill`: Deno then reports the signal as the end, also when the process handled it and exited 0. */
function sendSignal(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(child.pid, signal);
  } catch {
    // It ended by itself.
  }
}

function environment({ env = {}, bare = false }: RunOptions): Record<string, string> {
  const result: Record<string, string> = {};
  if (!bare) {
    for (const name of ["PATH", "HOME", "TMPDIR", "NODE_COMPILE_CACHE", "DENO_DIR"]) {
      const value = process.env[name];
      if (value !== undefined) result[name] = value;
    }
    result["LANG"] = "C.UTF-8";
  } else if (current.kind === "deno") {
    // its packages lie there, as Node's lie in node_modules
    result["DENO_DIR"] = process.env["DENO_DIR"] ?? "";
  }
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined) delete result[name];
    else result[name] = value;
  }
  return result;
}

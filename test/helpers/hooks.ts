// A hook-server under test: its folder, signed deliveries, its runs.
import { createHmac, randomUUID } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { type IncomingHttpHeaders, request } from "node:http";
import { join } from "node:path";
import { type RunOptions, type Running, runScript, startScript } from "./run.ts";
import { tempDir } from "./tmp.ts";
import { waitFor } from "./wait.ts";

export const secret = "planted-5ecret-of-the-forge";

export type Answer = {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  body: any;
};

/** One HTTP request over a connection of its own, or over a Unix socket. */
export function http(
  where: { port: number } | { socketPath: string },
  path: string,
  options: {
    method?: string;
    headers?: Record<string, string>;
    body?: string | Uint8Array;
  } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { method = options.body === undefined ? "GET" : "POST", headers = {}, body } = options;
    const call = request({ host: "127.0.0.1", ...where, path, method, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        let value: unknown;
        try {
          value = JSON.parse(text);
        } catch {
          value = undefined;
        }
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text,
          body: value,
        });
      });
    });
    call.on("error", reject);
    call.end(body);
  });
}

export function sign(body: string | Uint8Array, key = secret): string {
  return createHmac("sha256", key).update(body).digest("hex");
}

/** A hexadecimal text that differs only in the last of its digits: what a comparison of a prefix would take. */
export function lastDigitChanged(hex: string): string {
  return hex.replace(/.$/, (digit) => (Number.parseInt(digit, 16) ^ 1).toString(16));
}

/** A commit's name made of a number. */
export function sha(number: number): string {
  return number.toString(16).padStart(40, "a");
}

/** A push as GitHub sends it, less what nobody reads. */
export function pushPayload(repo: string, commit: string, ref = "refs/heads/main"): object {
  return {
    ref,
    before: sha(0),
    after: commit,
    deleted: false,
    repository: { full_name: repo, default_branch: "main" },
    pusher: { name: "ada" },
  };
}

export type Delivery = {
  payload?: unknown;
  /** Sent as it is instead of `payload`. */
  raw?: string | Uint8Array;
  event?: string;
  id?: string;
  /** null: unsigned. */
  key?: string | null;
  headers?: Record<string, string>;
  path?: string;
};

export type HookServer = {
  port: number;
  state: string;
  dir: string;
  running: Running;
  send: (delivery: Delivery) => Promise<Answer>;
  push: (repo: string, commit: string, options?: Delivery & { ref?: string }) => Promise<Answer>;
  /** A route on the Unix socket. */
  local: (path: string, method?: string) => Promise<Answer>;
  runs: () => Promise<Run[]>;
  /** Waits until nothing waits or runs. */
  idle: (timeout?: number) => Promise<Run[]>;
  stop: () => Promise<void>;
  /** kill -9, as a crash. */
  kill: () => Promise<void>;
};

export type Run = {
  id: string;
  repo: string;
  ref: string;
  sha: string;
  state: string;
  reason?: string;
  by?: string;
  accepted: string;
  started?: string;
  exit?: number;
  attempt: number;
  interrupted?: string[];
};

/** A folder with hooks.yml, a secret, and a script `job` that runs on pushes and releases. */
export async function makeYard(
  options: {
    repos?: Record<string, string>;
    /** Lines of YAML at the top. */
    top?: string;
    /** A shell script's lines. */
    job?: string;
    dir?: string;
  } = {},
): Promise<string> {
  const dir = options.dir ?? tempDir("hook-");
  await mkdir(join(dir, "co"), { recursive: true });
  await writeFile(join(dir, "secret"), `${secret}\n`, { mode: 0o600 });
  await writeFile(join(dir, "job"), `#!/bin/sh\n${options.job ?? "echo built $HOOK_SHA"}\n`);
  await chmod(join(dir, "job"), 0o755);
  const repos = options.repos ?? { "me/site": "" };
  const lines = Object.entries(repos).map(([name, more]) =>
    [
      `  ${name}:`,
      `    dir: co`,
      ...(more.includes("secret_") || more.includes("insecure") ? [] : ["    secret_file: secret"]),
      ...(more.includes("refs:") ? [] : ["    refs: [main]"]),
      ...(more.includes("poll:") ? [] : ["    poll: false"]),
      ...(/(?:^|\n)on:/.test(more) ? [] : [`    on: { push: ${dir}/job, release: ${dir}/job }`]),
      ...more
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => `    ${line}`),
    ].join("\n"),
  );
  const top = options.top ?? "";
  const text = `listen: 127.0.0.1:0\nstate: state\n${top}${top.endsWith("\n") || top === "" ? "" : "\n"}repos:\n${lines.join("\n")}\n`;
  await writeFile(join(dir, "hooks.yml"), text);
  return dir;
}

/** Starts a hook-server on a folder that `makeYard` made, and waits until it listens. */
export async function startHooks(
  dir: string,
  options: { env?: RunOptions["env"]; args?: string[]; wrap?: (args: string[]) => Running } = {},
): Promise<HookServer> {
  const args = ["--config", join(dir, "hooks.yml"), ...(options.args ?? [])];
  const running = options.wrap
    ? options.wrap(args)
    : startScript("hook-server", args, { ...(options.env ? { env: options.env } : {}) });
  const [, port] = await running.until(/listens on (?:unix:[^ ]*|[^ ]*?:(\d+)),/);
  const state = join(dir, "state");
  const server: HookServer = {
    port: Number(port),
    state,
    dir,
    running,
    async send({ payload, raw, event = "push", id = randomUUID(), key = secret, headers, path = "/hook" }) {
      const body = raw ?? JSON.stringify(payload);
      return await http({ port: server.port }, path, {
        body,
        headers: {
          "content-type": "application/json",
          "x-github-event": event,
          "x-github-delivery": id,
          ...(key === null ? {} : { "x-hub-signature-256": `sha256=${sign(body, key)}` }),
          ...headers,
        },
      });
    },
    async push(repo, commit, { ref, ...delivery } = {}) {
      return await server.send({ payload: pushPayload(repo, commit, ref), ...delivery });
    },
    local: (path, method = "GET") => http({ socketPath: join(state, "socket") }, path, { method }),
    async runs() {
      return (await server.local("/runs?limit=100000")).body.runs;
    },
    async idle(timeout = 20_000) {
      const busy = new Set(["waiting", "starting", "running"]);
      return await waitFor(
        async () => {
          const runs = await server.runs();
          return runs.some((run) => busy.has(run.state)) ? undefined : runs;
        },
        { timeout, what: () => `all runs to end; so far:\n${running.output()}` },
      );
    },
    async stop() {
      const { code } = await running.stop();
      if (code !== 0) throw new Error(`hook-server exited ${code}:\n${running.output()}`);
    },
    async kill() {
      running.kill("SIGKILL");
      await running.exited;
    },
  };
  return server;
}

/** What runs.jsonl in a state folder says of each run, in the order of its acceptance. */
export function storedRuns({ state }: Pick<HookServer, "state">): (Run & Record<string, any>)[] {
  const runs = new Map<string, Run>();
  const lines = readFileSync(join(state, "runs.jsonl"), "utf8").split("\n").slice(0, -1);
  for (const line of lines) {
    const { runs: now = [], gone = [] } = JSON.parse(line) as { runs?: Run[]; gone?: string[] };
    for (const run of now) runs.set(run.id, run);
    for (const id of gone) runs.delete(id);
  }
  return [...runs.values()];
}

/** Whether a run's record still says that somebody is to be told of its end. */
export function untold(server: Pick<HookServer, "state">): boolean {
  const outbox = join(server.state, "notify", "outbox");
  return (existsSync(outbox) && readdirSync(outbox).length > 0) || storedRuns(server).some(({ tell }) => tell);
}

/** A run's own log. */
export function logOf(server: HookServer, run: string): string {
  return readFileSync(join(server.state, "runs", run, "log"), "utf8");
}

/** All files below a folder. */
export function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? (entry as { path?: string }).path ?? "", entry.name));
}

export { runScript };

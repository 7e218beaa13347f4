// Deploy directories with an app that answers over HTTP, and launchfit running in them.
import { mkdirSync, readlinkSync, writeFileSync } from "node:fs";
import { type Agent, get as httpGet } from "node:http";
import { join } from "node:path";
import { askControl, type ControlAnswer, controlPath } from "../../lib/launch/control.ts";
import { freePort } from "./ports.ts";
import { installInto } from "../../lib/launch/launch.ts";
import type { Publisher } from "./publisher.ts";
import { runScript, type Running, startScript } from "./run.ts";
import { current } from "./runtime.ts";
import { tempDir } from "./tmp.ts";

/** An app that answers with its version and ends in good order at TERM; `extra` runs first. */
export function webApp(version: string, extra = ""): Record<string, string> {
  return {
    "server.js": `${extra}
const server = require("http").createServer((_, response) => response.end(${JSON.stringify(version)}));
server.listen(process.env.LISTEN_FDS ? { fd: 3 } : { port: Number(process.env.PORT), host: "127.0.0.1" });
console.log("app", process.env.LAUNCHFIT_VERSION, "serves");
process.on("SIGTERM", () => server.close(() => process.exit(0)));
`,
  };
}

/** Why app.listen is not tried by this runtime. */
export const opensNoSocket =
  current.kind === "deno" ? "Deno cannot open a socket for another program (app.listen)" : undefined;

export type Deployed = {
  folder: string;
  port: number;
  /** What the app answers, or the error's code. */
  ask: () => Promise<string>;
  /** Runs a command of launchfit in the directory. */
  tell: (...args: string[]) => ReturnType<typeof runScript>;
  /** Asks the running launchfit by its socket, as its commands do. */
  control: (command: string, more?: Record<string, unknown>) => Promise<ControlAnswer>;
  status: () => Promise<Record<string, unknown>>;
  /** Starts launchfit in the foreground and waits until the app is up. */
  launch: () => Promise<Running>;
  current: () => string;
};

export type DeployOptions = {
  folder?: string;
  /** Where the app answers; default: any free one. */
  port?: number;
  /** Lines for `app:` in launchify.yml, besides exec. */
  app?: string[];
  updates?: string[];
  hooks?: string[];
  /** Hand the port over as fd 3. */
  listen?: boolean;
};

/** A directory with the publisher's current version installed. */
export async function deploy(publisher: Publisher, options: DeployOptions = {}): Promise<Deployed> {
  const { folder = tempDir(), app = [], updates = [], hooks = [], listen = false } = options;
  const { port = await freePort() } = options;
  mkdirSync(folder, { recursive: true });
  const section = (name: string, lines: string[]) =>
    lines.length === 0 ? [] : [`${name}:`, ...lines.map((line) => `  ${line}`)];
  const has = (key: string, lines = app) => lines.some((line) => line.startsWith(`${key}:`));
  const config = [
    ...section("app", [
      ...(has("exec") ? [] : ["exec: exec node server.js"]),
      ...(has("env") ? [] : [`env: { PORT: "${port}" }`]),
      ...(has("health") ? [] : [`health: { url: "http://127.0.0.1:${port}/", within: 20s }`]),
      ...(has("grace") ? [] : ["grace: 2s"]),
      ...(listen ? [`listen: ${port}`] : []),
      ...app,
    ]),
    ...section("updates", has("watch", updates) ? updates : ["watch: 200ms", ...updates]),
    ...section("hooks", hooks),
  ];
  writeFileSync(join(folder, "launchify.yml"), `${config.join("\n")}\n`);
  const control = async (command: string, more: Record<string, unknown> = {}) => {
    const answer = await askControl(controlPath(folder), { command, ...more });
    if (!answer) throw new Error("no launchfit runs");
    return answer;
  };
  const tell = (...args: string[]) => runScript("launchfit", [...args, "--dir", folder]);
  // in this process, since a start costs more
  await installInto(folder, publisher.url, { key: publisher.fingerprint, note: () => {} });
  return {
    folder,
    port,
    ask: () => askPort(port),
    tell,
    control,
    status: () => control("status"),
    async launch() {
      const running = startScript("launchfit", ["--dir", folder]);
      await running.until(/started .* process \d+/);
      return running;
    },
    current: () => readlinkSync(join(folder, "current")),
  };
}

/** One request, on a connection of its own or over the agent's; the answer, or the error's code. */
export function askPort(port: number, agent: Agent | false = false): Promise<string> {
  return new Promise((resolve) => {
    const request = httpGet({ port, host: "127.0.0.1", agent }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve(text));
      response.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "error"));
    });
    request.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "error"));
  });
}

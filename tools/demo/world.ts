// What the demo's machines are made of: a temporary folder, processes, git, a forge that signs, a web server.
import { spawn } from "node:child_process";
import { createHmac, randomUUID } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { homedir, tmpdir } from "node:os";
import { join, normalize, parse } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { $ } from "zx";
import { findOwnNpmProgram } from "../../lib/exec/scripts.ts";

/** A long-lived script of ours. */
export interface Running {
  output(): string;
  /** TERM, then its exit code. */
  stop(): Promise<number | null>;
}

/** What starts each script, by its name. */
type Argvs = ReadonlyMap<string, readonly string[]>;
interface Scripts {
  scripts: Argvs;
  /** Whether literate programs can be compiled. */
  litpro: boolean;
}

/**
 * Under Node the bundles, as they lie on a server; under Deno the sources, which need no step before, and litpro. In a
 * package both are `root` itself.
 */
async function findScripts(root: string): Promise<Scripts> {
  const names = await readdir(root);
  const deno = process.versions["deno"] !== undefined && names.includes("scripts");
  const folder = deno ? join(root, "scripts") : names.includes("tools") ? join(root, "dist") : root;
  const files = (await readdir(folder).catch(() => [])).filter((name) => name.endsWith(deno ? ".ts" : ".mjs"));
  if (files.length === 0) throw new Error("there are no bundles; run npm run bundle");
  const litpro = deno || (await findOwnNpmProgram("litpro")) !== undefined;
  const start = process.versions["deno"] ? [process.execPath, "run", "-A"] : [process.execPath];
  const scripts = new Map(files.map((name) => [parse(name).name, [...start, join(folder, name)]]));
  if (deno) {
    const { dependencies } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
    scripts.set("litpro", [...start, `npm:litpro@${dependencies.litpro}`]);
  }
  return { scripts, litpro };
}

/** One demo's folder, and all that was started in it: `end` leaves nothing of either. */
export class World {
  readonly folder: string;
  readonly hasLitpro: boolean;
  readonly #scripts: Argvs;
  readonly #env: NodeJS.ProcessEnv;
  readonly #running = new Set<Running>();
  readonly #web: Server[] = [];
  readonly #signal: AbortSignal;

  constructor(folder: string, { scripts, litpro }: Scripts, signal: AbortSignal) {
    this.folder = folder;
    this.hasLitpro = litpro;
    this.#scripts = scripts;
    this.#signal = signal;
    this.#env = {
      ...process.env,
      // the scripts by their names, as a server has them
      PATH: `${join(folder, "bin")}:${process.env.PATH}`,
      // nobody's configuration, and a name for the commits
      HOME: join(folder, "home"),
      // Deno's packages stay where they are
      DENO_DIR: process.env.DENO_DIR ?? join(homedir(), ".cache", "deno"),
      XDG_RUNTIME_DIR: undefined,
      GIT_CONFIG_GLOBAL: "/dev/null",
      GIT_AUTHOR_NAME: "Ada",
      GIT_AUTHOR_EMAIL: "ada@example.com",
      GIT_COMMITTER_NAME: "Ada",
      GIT_COMMITTER_EMAIL: "ada@example.com",
    };
  }

  /** A new folder, with the scripts of the checkout `root` by their names in its `bin`. */
  static async make(root: string, signal: AbortSignal): Promise<World> {
    const found = await findScripts(root);
    const folder = await realpath(await mkdtemp(join(tmpdir(), "boatyard-demo-")));
    await mkdir(join(folder, "bin"));
    await mkdir(join(folder, "home"));
    for (const [name, argv] of found.scripts) {
      const words = argv.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
      const text = `#!/bin/sh\nexec ${words} "$@"\n`;
      await writeFile(join(folder, "bin", name), text, { mode: 0o755 });
    }
    return new World(folder, found, signal);
  }

  /** A path in the folder. */
  readonly place = (...names: string[]): string => join(this.folder, ...names);

  async git(dir: string, ...args: string[]): Promise<string> {
    return (await this.in(dir)`git ${args}`).stdout.trim();
  }

  /** Run a script of ours to its end; its stdout. */
  async script(name: string, args: string[], dir = "."): Promise<string> {
    return (await this.in(dir)`${this.#scripts.get(name)} ${args}`).stdout.trim();
  }

  /** zx in one of the demo's folders; stdin is closed, so that bash reads nobody's ~/.bashrc. */
  private in(dir: string) {
    return $({
      cwd: this.place(dir),
      env: this.#env,
      signal: this.#signal,
      stdio: ["ignore", "pipe", "pipe"],
      quiet: true,
    });
  }

  /** Start a script of ours, and wait until it says `ready`. */
  async start(name: string, args: string[], ready: () => Promise<boolean>, dir = "."): Promise<Running> {
    const [program = "", ...words] = [...(this.#scripts.get(name) ?? []), ...args];
    const child = spawn(program, words, {
      cwd: this.place(dir),
      env: this.#env,
      stdio: "pipe",
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => (output += text));
    const ended = new Promise<number | null>((resolve) => child.on("exit", resolve));
    const running: Running = {
      output: () => output,
      stop: async () => {
        this.#running.delete(running);
        try {
          // not by child.kill: Deno then tells the signal instead of the exit code
          if (child.pid !== undefined) process.kill(child.pid, "SIGTERM");
        } catch {
          // it has ended by itself
        }
        return await ended;
      },
    };
    this.#running.add(running);
    await this.until(`${name} answers`, ready, () => output);
    return running;
  }

  /** A web server for a folder, on a port of its own; `asked` counts. */
  async serve(dir: string): Promise<{ url: string; asked: () => number }> {
    let asked = 0;
    const server = createServer((request, response) => {
      asked += 1;
      const path = normalize(decodeURIComponent(request.url?.split("?")[0] ?? "/"));
      readFile(this.place(dir, path)).then(
        (bytes) => response.writeHead(200, { "Content-Length": bytes.length }).end(bytes),
        () => response.writeHead(404).end(),
      );
    });
    this.#web.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const port = typeof address === "object" && address ? address.port : 0;
    return { url: `http://127.0.0.1:${port}`, asked: () => asked };
  }

  /** A delivery as GitHub sends it. */
  async deliver(url: string, secret: string, event: "push" | "release", payload: object) {
    const body = JSON.stringify(payload);
    const headers = {
      "Content-Type": "application/json",
      "User-Agent": "GitHub-Hookshot/demo",
      "X-GitHub-Event": event,
      "X-GitHub-Delivery": randomUUID(),
      "X-Hub-Signature-256": `sha256=${createHmac("sha256", secret).update(body).digest("hex")}`,
    };
    const answer = await fetch(url, { method: "POST", headers, body, signal: this.#signal });
    return { status: answer.status, text: (await answer.text()).trim() };
  }

  /** Asks until the answer is yes; an error is a no. Gives up after a minute. */
  async until(what: string, condition: () => Promise<boolean>, hint = () => ""): Promise<void> {
    for (let tries = 0; tries < 1200; tries++) {
      if (await condition().catch(() => false)) return;
      await sleep(50, undefined, { signal: this.#signal });
    }
    throw new Error(`waited in vain until ${what}. ${hint()}`);
  }

  /** Everything ends, and the folder is gone. */
  async end(): Promise<void> {
    await Promise.all([...this.#running].map((running) => running.stop()));
    for (const server of this.#web) {
      server.close();
      server.closeAllConnections();
    }
    await rm(this.folder, { recursive: true, force: true });
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address ? address.port : 0;
}

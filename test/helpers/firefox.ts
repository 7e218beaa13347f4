// Debian's firefox, by its own protocol (Marionette: JSON with its length in front, over TCP): playwright-core speaks to a
// firefox of its own alone.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { createConnection, type Socket } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { tempDir } from "./tmp.ts";
import { waitFor } from "./wait.ts";

const executable = "/usr/bin/firefox-esr";

/** Why no firefox can be had here. */
export const needsFirefox = !existsSync(executable) && "needs firefox-esr";

type Reply = { value?: unknown };

export class Firefox {
  readonly #child: ChildProcess;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, (reply: [error: unknown, result: Reply]) => void>();
  #count = 0;
  #received = Buffer.alloc(0);

  private constructor(child: ChildProcess, socket: Socket) {
    this.#child = child;
    this.#socket = socket;
    socket.on("data", (data) => this.#take(data));
  }

  /** Start one with a profile of its own, and open a page in it. */
  static async start(): Promise<Firefox> {
    const profile = tempDir("firefox-");
    // a port of the kernel's choice: firefox writes it into its profile
    await writeFile(join(profile, "user.js"), 'user_pref("marionette.port", 0);\n');
    const child = spawn(executable, ["--headless", "--marionette", "--profile", profile], {
      stdio: "ignore",
      env: { ...process.env, HOME: profile, MOZ_CRASHREPORTER_DISABLE: "1" },
    });
    const portFile = join(profile, "MarionetteActivePort");
    const port = await waitFor(async () => Number(await readFile(portFile, "utf8")), {
      timeout: 60_000,
      what: "firefox to start",
    });
    const firefox = new Firefox(child, createConnection(port, "127.0.0.1"));
    await firefox.#send("WebDriver:NewSession", {});
    return firefox;
  }

  async goto(url: string): Promise<void> {
    await this.#send("WebDriver:Navigate", { url });
  }

  /** What a script in the page returns. */
  async run<T>(script: string): Promise<T> {
    return (await this.#send("WebDriver:ExecuteScript", { script, args: [] })).value as T;
  }

  async close(): Promise<void> {
    const gone = once(this.#child, "exit");
    await this.#send("Marionette:Quit", { flags: ["eForceQuit"] }).catch(() => {});
    await gone;
    this.#socket.destroy();
  }

  async #send(command: string, parameters: object): Promise<Reply> {
    const id = ++this.#count;
    const replied = new Promise<[unknown, Reply]>((done) => this.#waiting.set(id, done));
    const text = JSON.stringify([0, id, command, parameters]);
    this.#socket.write(`${Buffer.byteLength(text)}:${text}`);
    const [error, result] = await replied;
    if (error) throw new Error(`${command}: ${JSON.stringify(error)}`);
    return result;
  }

  #take(data: Buffer): void {
    this.#received = Buffer.concat([this.#received, data]);
    for (;;) {
      const colon = this.#received.indexOf(":");
      const end = colon + 1 + Number(this.#received.toString("latin1", 0, Math.max(0, colon)));
      if (colon < 0 || this.#received.length < end) return;
      const message = JSON.parse(this.#received.toString("utf8", colon + 1, end)) as unknown;
      this.#received = this.#received.subarray(end);
      // the first message is a greeting
      if (!Array.isArray(message)) continue;
      this.#waiting.get(message[1] as number)?.([message[2], message[3] as Reply]);
    }
  }
}

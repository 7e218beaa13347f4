// templates/listen.mjs: a Node app that knows only $PORT gets launchfit's socket, unchanged.
import { spawn } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { freePort } from "../helpers/ports.ts";
import { current, root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const get = (port: number, agent?: http.Agent) =>
  new Promise<string>((resolve, reject) => {
    const asked = http.get({ host: "127.0.0.1", port, ...(agent ? { agent } : {}) }, (response) => {
      let text = "";
      response.on("data", (part) => (text += part));
      response.on("end", () => resolve(`${response.headers.connection} ${text}`));
    });
    asked.on("error", reject);
  });

testUnless(test, current.kind === "deno" && "Deno cannot open a socket for another program")(
  "an app that listens on $PORT accepts on fd 3, answers on the health port, and at SIGTERM what is on its way",
  async () => {
    const [port, health] = [await freePort(), await freePort()];
    const { _createServerHandle: open } = net as unknown as {
      _createServerHandle: (host: string, port: number, family: number) => { fd: number };
    };
    const app = join(tempDir(), "app.mjs");
    writeFileSync(
      app,
      `import http from "node:http";
      http.createServer((request, response) => setTimeout(() => response.end("hello"), 500))
        .listen({ port: process.env.PORT, host: "0.0.0.0" }, () => console.log("up"));
      http.createServer().listen(0, () => console.log("another"));`,
    );
    const child = spawn(process.execPath, [app], {
      stdio: ["ignore", "pipe", "inherit", open("127.0.0.1", port, 4).fd],
      env: {
        ...{ PORT: String(port), LISTEN_FDS: "1", LAUNCHFIT_HEALTH_PORT: String(health) },
        NODE_OPTIONS: `--import=${pathToFileURL(join(root, "templates/listen.mjs")).href}`,
      },
    });
    let output = "";
    child.stdout?.on("data", (part) => (output += part));
    await waitFor(() => /up/.test(output) && /another/.test(output), { what: "the app" });
    const agent = new http.Agent({ keepAlive: true });
    assert.is(await get(port, agent), "keep-alive hello");
    assert.match(await get(health), "hello");
    const under = get(port, agent);
    await waitFor(() => Object.keys(agent.sockets).length > 0, { what: "a request under way" });
    await new Promise((resolve) => setTimeout(resolve, 100));
    child.kill("SIGTERM");
    assert.match(await under, "hello");
    assert.equal(await once(child, "exit"), [0, null]);
    agent.destroy();
  },
);

test.run();

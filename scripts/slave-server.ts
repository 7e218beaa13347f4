import process from "node:process";
import { defineCommand, runScript } from "../lib/cli/command.ts";

const command = defineCommand({
  name: "slave-server",
  summary: "wait for requests of the master, and update the repo that each names",
  usage: ["slave-server [FILE] [flags]"],
  args: [["FILE", "a file to serve at /, for testing"]],
  maxArgs: 1,
  flags: {
    config: {
      type: "string",
      value: "FILE",
      help: "settings, see templates/slave.yml (default: /etc/boatyard/slave.yml if it is there)",
    },
    listen: {
      type: "string",
      value: "ADDRESS",
      help: "where to listen (default: 127.0.0.1:9999; with a secret 0.0.0.0:9999)",
    },
    repos: { type: "string", value: "DIR", help: "where repos are put (default: ~/repos)" },
    base: {
      type: "string",
      value: "URL",
      help: "where repos come from (default: https://github.com/aiegoo/)",
    },
    allow: { type: "list", value: "PATTERN", help: "only these repos; * stands for anything" },
    jobs: { type: "number", value: "N", help: "updates at once (default: 2)" },
    insecure: { type: "boolean", help: "listen to other machines without a secret" },
  },
  examples: [
    ["slave-server", "wait on 127.0.0.1:9999 for GET /get/?repo=NAME"],
    ["slave-server --config slave.yml --allow 'site,app-*'", "signed requests, a few repos"],
    ["slave-server index.html --listen 127.0.0.1:9001", "a second one, serving a file as well"],
  ],
  exits: { 0: "ended by SIGTERM or SIGINT", 1: "the server failed" },
  notes:
    "Routes: GET or POST /get/?repo=NAME[&sha=SHA], GET /jobs/ID?wait=30s, GET /status?repo=NAME, GET /healthz.",
  ownSignals: true,
  run: async ({ flags, args, terminal }) => {
    const { startSlaveServer } = await import("../lib/fleet/slave/server.ts");
    // a signal may come as soon as it is known that the server is there
    const ended = new Promise<string>((resolve) => {
      for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
        process.once(name, () => resolve(name));
    });
    const server = await startSlaveServer(flags, {
      file: args[0],
      note: (line) => terminal.note(line),
      onBug: (error) => terminal.warn(error instanceof Error ? String(error.stack) : String(error)),
    });
    terminal.note(`slave-server listens on ${server.address}, repos in ${server.repos}`);
    terminal.printJson({ listening: server.address, repos: server.repos });
    terminal.note(`${await ended}: ending; updates under way go on at the next start`);
    await server.close();
  },
});

void runScript(command);

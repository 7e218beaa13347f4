import process from "node:process";
import { defineCommand, runScript } from "../lib/cli/command.ts";

const command = defineCommand({
  usage: `
slave-server: wait for requests of the master, and update the repo that each names

Usage
  slave-server [FILE] [flags]

Operands
  [FILE]  a file to serve at /, for testing

Flags
  --config FILE      settings, see templates/slave.yml (default: /etc/boatyard/slave.yml if it is there)
  --listen ADDRESS   where to listen (default: 0.0.0.0:9999; 127.0.0.1:9999 with --insecure)
  --repos DIR        where repos are put (default: ~/repos)
  --base URL         where repos come from (default: base: of slave.yml)
  --allow PATTERN,…  only these repos; * stands for anything
  --jobs N           updates at once (default: 2)
  --insecure         start without key and secret, for this machine only: to try it

Examples
  slave-server --insecure --base https://github.com/me/  wait on 127.0.0.1:9999 for GET /get/?repo=NAME
  slave-server --config slave.yml --allow 'site,app-*'  signed letters, a few repos
  slave-server index.html --insecure --listen 127.0.0.1:9001  a second one, serving a file as well

Exit codes
  0  ended by SIGTERM or SIGINT
  1  the server failed

Routes: GET or POST /get/?repo=NAME, GET /status?repo=NAME&wait=30s, GET /metrics, GET /healthz.
`,
  ownSignals: true,
  run: async ({ flags, args, terminal }) => {
    const { startSlaveServer } = await import("../lib/fleet/slave/server.ts");
    // a signal may come as soon as it is known that the server is there
    const ended = new Promise<string>((resolve) => {
      for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(name, () => resolve(name));
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

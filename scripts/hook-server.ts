#!/usr/bin/env node
import { defineCommand, runScript } from "../lib/cli.ts";
import { serve } from "../lib/hook/server.ts";

const common = {
  config: {
    type: "string",
    value: "FILE",
    default: "hooks.yml",
    env: "BOATYARD_HOOKS",
    help: "the configuration",
  },
  state: {
    type: "string",
    value: "DIR",
    env: "BOATYARD_STATE",
    help: "where queue and runs are kept (default: the file's, else /var/lib/boatyard for root)",
  },
} as const;

const command = defineCommand({
  name: "hook-server",
  summary: "take a forge's signed webhooks and run a build or a release for each",
  usage: ["hook-server [--config hooks.yml] [--listen ADDRESS:PORT] [--state DIR]"],
  flags: {
    ...common,
    listen: {
      type: "string",
      value: "ADDRESS:PORT",
      help: "where to listen (default: the file's, else 127.0.0.1:3420)",
    },
  },
  examples: [
    ["hook-server --config /etc/boatyard/hooks.yml", "serve until SIGTERM"],
    ["hook-server list", "what waits, runs and ran"],
  ],
  ownSignals: true,
  run: async ({ flags, terminal }) => {
    await serve({
      file: flags.config,
      overrides: { listen: flags.listen, state: flags.state },
      quiet: terminal.quiet,
    });
  },
});

await runScript(command);

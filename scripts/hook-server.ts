import { type Command, defineCommand, runScript } from "../lib/cli.ts";
import { check } from "../lib/hook/check.ts";
import { HookClient } from "../lib/hook/client.ts";
import { list, log, show, steer } from "../lib/hook/commands.ts";
import { findConfig, findState, loadConfig } from "../lib/hook/config.ts";
import { serve } from "../lib/hook/server.ts";

const common = {
  config: {
    type: "string",
    value: "FILE",
    env: "BOATYARD_HOOKS",
    help: "the configuration (default: hooks.yml here, else /etc/boatyard/hooks.yml)",
  },
  state: {
    type: "string",
    value: "DIR",
    env: "BOATYARD_STATE",
    help: "where queue and runs are kept (default: the file's state:, else /var/lib/boatyard for root, ~/.local/state/boatyard for others)",
  },
} as const;

const clientOf = async (flags: { config?: string | undefined; state?: string | undefined }) =>
  new HookClient(await findState(flags.config, flags.state));

const run = ["RUN", "a run's id, as `hook-server list` shows it"] as const;

function steering(what: "cancel" | "rerun", summary: string): Command {
  return defineCommand({
    name: `hook-server ${what}`,
    summary,
    usage: [`hook-server ${what} RUN`],
    args: [run],
    minArgs: 1,
    maxArgs: 1,
    flags: common,
    examples: [
      [`hook-server ${what} 20261120T101500Z-3f2a9c`, summary],
      [
        `hook-server ${what} --state /var/lib/boatyard 20261120T101500Z-3f2a9c`,
        "of a server with that state",
      ],
    ],
    run: async ({ flags, args, terminal }) =>
      steer(await clientOf(flags), terminal, what, args[0] ?? ""),
  });
}

const command = defineCommand({
  name: "hook-server",
  summary: "take a forge's signed webhooks, and run a build or a release for each",
  usage: [
    "hook-server [--config hooks.yml] [--listen 127.0.0.1:3420] [--state DIR]",
    "hook-server --check [--config hooks.yml]",
    "hook-server list|show|log|cancel|rerun …",
  ],
  flags: {
    ...common,
    listen: {
      type: "string",
      value: "ADDRESS:PORT",
      help: "where to listen (default: the file's listen:, else 127.0.0.1:3420)",
    },
    check: {
      type: "boolean",
      help: "read the configuration, try what a run would need, say what to mend",
    },
  },
  examples: [
    [
      "hook-server --config /etc/boatyard/hooks.yml",
      "serve until SIGTERM; SIGHUP reads the file again",
    ],
    ["hook-server --check", "is everything there that a run needs?"],
    ["hook-server log -f", "watch the newest run"],
  ],
  exits: { 0: "done; the server was stopped by a signal" },
  subcommands: {
    list: defineCommand({
      name: "hook-server list",
      summary: "what waits, runs and ran, the newest first",
      usage: ["hook-server list [--repo OWNER/NAME] [--only STATE] [-n 20]"],
      flags: {
        ...common,
        repo: { type: "string", value: "OWNER/NAME", help: "runs of this repo only" },
        only: {
          type: "string",
          value: "STATE",
          help: "runs in this state only",
          choices: [
            "waiting",
            "starting",
            "running",
            "succeeded",
            "failed",
            "cancelled",
            "superseded",
          ],
        },
        lines: { type: "number", short: "n", value: "N", default: 20, help: "how many" },
      },
      examples: [
        ["hook-server list", "the last 20 runs"],
        ["hook-server list --only failed --json", "failed ones, for a script"],
      ],
      run: async ({ flags, terminal }) =>
        list(await clientOf(flags), terminal, {
          repo: flags.repo,
          state: flags.only,
          limit: flags.lines,
        }),
    }),
    show: defineCommand({
      name: "hook-server show",
      summary: "all that is known of a run",
      usage: ["hook-server show RUN"],
      args: [run],
      minArgs: 1,
      maxArgs: 1,
      flags: common,
      examples: [
        ["hook-server show 20261120T101500Z-3f2a9c", "its record"],
        ["hook-server show --json 20261120T101500Z-3f2a9c", "its record as JSON"],
      ],
      run: async ({ flags, args, terminal }) =>
        show(await clientOf(flags), terminal, args[0] ?? ""),
    }),
    log: defineCommand({
      name: "hook-server log",
      summary: "a run's output",
      usage: ["hook-server log [-f] [RUN]"],
      args: [["RUN", "a run's id; default: the newest that has begun"]],
      maxArgs: 1,
      flags: {
        ...common,
        follow: { type: "boolean", short: "f", help: "follow it until the run ends" },
      },
      examples: [
        ["hook-server log", "of the newest run"],
        ["hook-server log -f 20261120T101500Z-3f2a9c", "as it grows"],
      ],
      exits: { 1: "the run that was followed did not end well" },
      run: async ({ flags, args }) => log(await clientOf(flags), args[0], flags.follow),
    }),
    cancel: steering("cancel", "end a run that waits or is under way"),
    rerun: steering("rerun", "run an ended run once more"),
  },
  ownSignals: true,
  run: async ({ flags, terminal }) => {
    const file = await findConfig(flags.config);
    const overrides = { listen: flags.listen, state: flags.state };
    if (!flags.check) return await serve({ file, overrides, quiet: terminal.quiet });
    const findings = await check(await loadConfig(file, overrides));
    terminal.printJson({ file, findings });
    for (const { what, mend } of findings) {
      terminal.print(
        mend === undefined
          ? `${terminal.paint.green("ok")}    ${what}`
          : `${terminal.paint.red("mend")}  ${what}: ${mend}`,
      );
    }
    return findings.some(({ mend }) => mend !== undefined) ? 2 : 0;
  },
});

await runScript(command);

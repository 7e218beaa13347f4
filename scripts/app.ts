import { defineCommand, runScript } from "../lib/cli/command.ts";
import { UsageError } from "../lib/core/errors.ts";
import { deploy, env, logs, make, receive, remove, run, status, undo } from "./app-commands.ts";

const command = defineCommand({
  usage: `
app: look after an app that boatyard up has made: logs, status, undo, secrets, commands

Usage
  app logs [-f] [-n 50] [PROCESS]
  app status
  app undo
  app env [set|unset [NAME…]]
  app run -- COMMAND
  app remove NAME [--purge]

Examples
  app logs -f             what it prints, until Ctrl-C
  app undo                back to the release before
  app env set SECRET_KEY  asks for the value, or reads it from standard input

In the repository from which it was made, they reach the server by ssh. make, receive and deploy are for the server.
`,
  subcommands: { logs, status, undo, env, run, remove, make, receive, deploy },
  run: () => {
    throw new UsageError("say what: app logs, status, undo, env, run, or remove; see app --help");
  },
});

void runScript(command);

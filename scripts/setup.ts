import { defineCommand, runScript } from "../lib/cli/command.ts";
import { UsageError } from "../lib/core/errors.ts";
import {
  appCommand,
  busCommand,
  checkCommand,
  removeCommand,
  repoCommand,
  serverCommand,
  slaveCommand,
} from "./setup-commands.ts";

const command = defineCommand({
  usage: `
setup: prepare a server, a repo on it, a slave, an app, or a bus; check and remove them

Usage
  setup server|slave|bus|check [flags]
  setup bus add|remove NAME [flags]
  setup repo OWNER/NAME [flags]
  setup app NAME --server URL --key FINGERPRINT
  setup remove repo|app|slave|server|bus [NAME] [flags]

Examples
  setup server --dry-run   what would be made, and why
  setup repo jostylr/site  an account, a key, a secret, a checkout for it
  setup check              what is missing or wrong, and how to fix it

Each can be run again: what is ready stays as it is. Each command has --help.
`,
  subcommands: {
    server: serverCommand,
    repo: repoCommand,
    slave: slaveCommand,
    app: appCommand,
    bus: busCommand,
    check: checkCommand,
    remove: removeCommand,
  },
  run: () => {
    throw new UsageError(
      "say what: setup server, repo OWNER/NAME, slave, app NAME, bus, check, or remove; see setup --help",
    );
  },
});

void runScript(command);

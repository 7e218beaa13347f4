#!/usr/bin/env node
import { resolve } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline/promises";
import { type CommandInput, defineCommand, runScript } from "../lib/cli.ts";
import { UsageError } from "../lib/errors.ts";
import { checkMachine } from "../lib/setup/check.ts";
import { forges } from "../lib/setup/forge.ts";
import { readFacts } from "../lib/setup/machine.ts";
import { planApp, planRepo, planServer, planSlave } from "../lib/setup/plan.ts";
import { repoNotes } from "../lib/setup/repo-notes.ts";
import { setUp } from "../lib/setup/setup.ts";

const root = {
  type: "string",
  value: "DIR",
  default: "/",
  help: "work on the system below DIR; what only a live one can do is listed",
} as const;

const common = {
  "dry-run": { type: "boolean", help: "show the plan, change nothing" },
  yes: { type: "boolean", short: "y", help: "do not ask" },
  root,
  from: {
    type: "string",
    value: "DIR",
    help: "where the scripts' .mjs files are (default: beside setup)",
  },
} as const;

const user = {
  type: "string",
  value: "NAME",
  help: "the Unix account (default: from the name)",
} as const;

type Common = CommandInput<typeof common>;

function options({ flags, terminal, signal }: Pick<Common, "flags" | "terminal" | "signal">) {
  const confirm = async () => {
    if (flags.yes) return true;
    if (!process.stdin.isTTY) throw new UsageError("nobody can be asked here; say --yes");
    const prompt = createInterface({ input: process.stdin, output: process.stderr });
    const answer = await prompt.question("Do it? [y/N] ", { signal }).finally(() => prompt.close());
    return /^y(?:es)?$/i.test(answer.trim());
  };
  return { root: resolve(flags.root), dryRun: flags["dry-run"], terminal, confirm, signal };
}

const facts = (flags: Common["flags"]) => readFacts(resolve(flags.root), flags.from);

await runScript(
  defineCommand({
    name: "setup",
    summary: "prepare a server, a repo on it, a slave, or an app; say what is wrong with them",
    usage: [
      "setup server|slave|check [flags]",
      "setup repo OWNER/NAME [flags]",
      "setup app NAME --server URL --key FINGERPRINT",
    ],
    flags: {},
    examples: [
      ["setup server --dry-run", "what would be made, and why"],
      ["setup repo jostylr/site", "an account, a key, a secret, a checkout for it"],
      ["setup check", "what is missing or wrong, and how to mend it"],
    ],
    notes: "Each can be run again: what is ready stays as it is. Each command has --help.",
    subcommands: {
      server: defineCommand({
        name: "setup server",
        summary: "scripts, folders, hooks.yml and services of a server that builds",
        usage: ["setup server [--dry-run] [--yes] [--root DIR]"],
        flags: common,
        examples: [
          ["setup server", "show the plan, ask, do it"],
          ["setup server --yes --root /mnt/image", "into an image"],
        ],
        run: async (input) => setUp(planServer(await facts(input.flags)), options(input)),
      }),
      repo: defineCommand({
        name: "setup repo",
        summary:
          "a repo's Unix account, deploy key, webhook secret, entry in hooks.yml and checkout",
        usage: ["setup repo OWNER/NAME [--url URL] [--user NAME] [--address URL] [flags]"],
        args: [["OWNER/NAME", "as the forge sends it"]],
        minArgs: 1,
        maxArgs: 1,
        flags: {
          ...common,
          user,
          url: {
            type: "string",
            value: "URL",
            help: "cloned from here (default: https://github.com/OWNER/NAME.git)",
          },
          branch: {
            type: "string",
            value: "NAME",
            help: "the branch to check out (default: the remote's)",
          },
          refs: {
            type: "list",
            value: "A,B",
            help: "branches and tags that are built (default: the checkout's branch)",
          },
          // oxlint-disable-next-line unicorn/no-thenable -- the word of hooks.yml
          then: {
            type: "string",
            value: "COMMAND",
            help: "run after a good build: 'server-update site'",
          },
          timer: {
            type: "boolean",
            help: "look for commits every five minutes instead of a webhook",
          },
          address: {
            type: "string",
            value: "URL",
            help: "where the forge reaches this server (default: https:// and the host's name)",
          },
          forge: {
            type: "string",
            value: "NAME",
            choices: [...forges],
            help: "whose words to use (default: by the URL)",
          },
        },
        examples: [
          [
            "setup repo jostylr/site --address https://hooks.example.com",
            "a public repo on GitHub",
          ],
          [
            "setup repo ada/notes --url git@git.example.com:ada/notes.git",
            "a private one on a Forgejo",
          ],
        ],
        run: async (input) => {
          const { flags, args } = input;
          const known = await facts(flags);
          const wishes = {
            ...flags,
            repo: args[0] ?? "",
            afterwards: flags.then === undefined ? [] : [flags.then],
          };
          const plan = planRepo(known, wishes);
          const closing = (made: ReadonlyMap<string, string>) =>
            repoNotes(plan, wishes, known, made);
          return await setUp(plan, { ...options(input), closing });
        },
      }),
      slave: defineCommand({
        name: "setup slave",
        summary: "slave-server and slave-activate, with an account that owns nothing else",
        usage: ["setup slave [--base URL] [--secret-file FILE] [flags]"],
        flags: {
          ...common,
          user,
          base: {
            type: "string",
            value: "URL",
            help: "where repos come from (default: that of slave.yml)",
          },
          "secret-file": {
            type: "string",
            value: "FILE",
            help: "the master's secret (default: a fresh one)",
          },
        },
        examples: [
          ["setup slave --base https://github.com/jostylr/", "with a secret of its own"],
          ["setup slave --secret-file master.secret", "with the master's, which was copied here"],
        ],
        run: async (input) => {
          const wishes = { ...input.flags, secretFile: input.flags["secret-file"] };
          return await setUp(planSlave(await facts(input.flags), wishes), options(input));
        },
      }),
      app: defineCommand({
        name: "setup app",
        summary: "an app's account, its first install, and launchfit as its service",
        usage: ["setup app NAME --server URL --key FINGERPRINT [flags]"],
        args: [["NAME", "the app's name"]],
        minArgs: 1,
        maxArgs: 1,
        flags: {
          ...common,
          user,
          server: { type: "string", value: "URL", help: "the web folder with its releases" },
          key: {
            type: "string",
            value: "FINGERPRINT",
            help: "the key that must have signed everything",
          },
        },
        examples: [
          [
            "setup app my-app --server https://example.com/app-updates --key 0123…CDEF",
            "install and run it",
          ],
          [
            "setup app my-app --server https://example.com/app-updates --key 0123…CDEF --dry-run",
            "show the plan",
          ],
        ],
        run: async (input) => {
          const { server, key } = input.flags;
          if (server === undefined || key === undefined)
            throw new UsageError(
              "--server and --key are needed; release keygen prints the fingerprint",
            );
          const wishes = { app: input.args[0] ?? "", server, key, user: input.flags.user };
          return await setUp(planApp(await facts(input.flags), wishes), options(input));
        },
      }),
      check: defineCommand({
        name: "setup check",
        summary: "what is missing or wrong on this machine, and how to mend it",
        usage: ["setup check [--root DIR] [--forge URL]"],
        flags: {
          root,
          forge: {
            type: "string",
            value: "URL",
            default: "https://github.com/",
            help: "must be reachable; its clock is compared",
          },
        },
        examples: [
          ["setup check", "everything"],
          [
            "setup check --json --forge https://git.example.com/",
            "for a script, with another forge",
          ],
        ],
        exits: { 1: "something is to be mended" },
        run: async ({ flags, terminal, signal }) => {
          const findings = await checkMachine({
            root: resolve(flags.root),
            forge: flags.forge,
            signal,
          });
          terminal.printJson({ findings });
          for (const { what, mend } of findings)
            terminal.print(
              mend === undefined
                ? `${terminal.paint.green("ok")}    ${what}`
                : `${terminal.paint.red("mend")}  ${what}: ${mend}`,
            );
          return findings.some(({ mend }) => mend !== undefined) ? 1 : 0;
        },
      }),
    },
    run: () => {
      throw new UsageError(
        "say what: setup server, repo OWNER/NAME, slave, app NAME, or check; see setup --help",
      );
    },
  }),
);

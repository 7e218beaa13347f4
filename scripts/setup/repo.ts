import { defineCommand } from "../../lib/cli/command.ts";
import type { Forge } from "../../lib/setup/setup.ts";
import { common, facts, options, user } from "./flags.ts";

export const repoCommand = defineCommand({
  name: "setup repo",
  summary: "prepare a repo: Unix account, deploy key, webhook secret, entry in hooks.yml, checkout",
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
      choices: ["github", "gitea", "gitlab", "bitbucket"] satisfies Forge[],
      help: "the forge whose settings are named (default: by the URL)",
    },
  },
  examples: [
    ["setup repo jostylr/site --address https://hooks.example.com", "a public repo on GitHub"],
    ["setup repo ada/notes --url git@git.example.com:ada/notes.git", "a private one on a Forgejo"],
  ],
  run: async (input) => {
    const { flags, args } = input;
    const { planRepo, repoNotes, setUp } = await import("../../lib/setup/setup.ts");
    const known = await facts(flags);
    const request = {
      ...flags,
      repo: args[0] ?? "",
      afterwards: flags.then === undefined ? [] : [flags.then],
    };
    const plan = planRepo(known, request);
    const closing = (made: ReadonlySet<string>) => repoNotes(plan, request, known, made);
    return await setUp(plan, { ...options(input), closing });
  },
});

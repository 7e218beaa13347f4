import { resolve } from "node:path";
import { defineCommand, runScript } from "../lib/cli/command.ts";

const command = defineCommand({
  name: "uploads",
  summary: "publish a folder by rsync, S3 and git, sending only what changed",
  usage: ["uploads [DIR] [--to NAME] [--check | --dry-run] [--delete]"],
  args: [["DIR", "the checkout, with its uploads.yml; default: the current folder"]],
  maxArgs: 1,
  flags: {
    to: {
      type: "list",
      value: "NAME",
      help: "only these targets of uploads.yml",
      complete: async ({ args: [dir = "."], flags }) => {
        const { readUploadsConfig } = await import("../lib/uploads/uploads.ts");
        const file = flags.config ?? resolve(dir, "uploads.yml");
        return (await readUploadsConfig(file, dir)).targets.map(({ name }) => name);
      },
    },
    check: {
      type: "boolean",
      help: "check uploads.yml and the programs and keys that it needs; nothing is asked or sent",
    },
    "dry-run": {
      type: "boolean",
      short: "n",
      help: "list what would be sent, replaced and deleted",
    },
    delete: {
      type: "boolean",
      help: "at the end remove from the targets what is no longer in the folder",
    },
    retries: {
      type: "number",
      value: "N",
      default: 6,
      help: "retries after a broken connection, throttling or a server error",
    },
    config: { type: "string", value: "FILE", help: "read this instead of DIR/uploads.yml" },
  },
  examples: [
    ["uploads --dry-run --delete", "show what a full run would do"],
    ["uploads ~/site --to cdn,web", "publish ~/site to two of its targets"],
  ],
  exits: { 1: "a target failed; the others were served", 3: "another uploads runs in DIR" },
  environment: [
    ["AWS_ACCESS_KEY_ID, AWS_PROFILE, …", "S3 credentials, as all AWS tools read them"],
    ["https_proxy, all_proxy", "a proxy for S3 over https; no_proxy names exceptions"],
    ["SSH_AUTH_SOCK", "the ssh agent, for rsync and git"],
  ],
  async run({ flags, args, terminal, signal }) {
    const { checkUploads, runUploads, showResults } = await import("../lib/uploads/uploads.ts");
    const dryRun = flags["dry-run"];
    const options = {
      ...{ dir: resolve(args[0] ?? "."), to: flags.to, dryRun, delete: flags.delete },
      config: flags.config === undefined ? undefined : resolve(flags.config),
      ...{ retries: flags.retries, terminal, signal },
    };
    if (flags.check) return await checkUploads(options);
    const results = await runUploads(options);
    showResults(results, { dryRun, terminal });
    return results.every(({ ok }) => ok) ? 0 : 1;
  },
});

void runScript(command);

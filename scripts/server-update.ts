import { defineCommand, runScript } from "../lib/cli/command.ts";
import { keygen } from "./server-update/keygen.ts";

const command = defineCommand({
  name: "server-update",
  summary: "tell every slave in a list to update a repo",
  usage: [
    "server-update REPO [flags]",
    "server-update --status [REPO] [flags]",
    "server-update --converge [REPO] [flags]",
    "server-update keygen --out FILE",
  ],
  args: [
    [
      "REPO",
      "the repo's name, as the slaves clone it",
      async () => (await import("../lib/fleet/master/update.ts")).wantedRepos(),
    ],
  ],
  maxArgs: 1,
  flags: {
    list: {
      type: "string",
      value: "FILE",
      default: "/etc/server-update/slavelist.txt",
      env: "SLAVELIST",
      help: "the slaves, one a line; - reads stdin",
    },
    group: {
      type: "string",
      value: "NAME",
      help: "only the slaves under [NAME]",
      complete: async ({ flags }) =>
        (await import("../lib/fleet/master/update.ts")).groupsIn(flags.list ?? ""),
    },
    base: {
      type: "string",
      value: "URL",
      env: "SERVER_UPDATE_BASE",
      help: "the URL below which the repos are, for the newest commit (default: that of the last run, else https://github.com/aiegoo/)",
    },
    branch: { type: "string", value: "NAME", help: "a branch or tag (default: the remote's HEAD)" },
    jobs: { type: "number", value: "N", default: 512, short: "j", help: "slaves asked at once" },
    timeout: { type: "duration", value: "TIME", default: "10s", help: "limit for an answer" },
    "connect-timeout": {
      type: "duration",
      value: "TIME",
      default: "2s",
      help: "limit for a connection",
    },
    retries: { type: "number", value: "N", default: 2, help: "retries if a slave does not answer" },
    wait: { type: "boolean", help: "wait for the result of each slave" },
    "wait-limit": {
      type: "duration",
      value: "TIME",
      default: "15m",
      help: "count a slave as failed if it takes longer",
    },
    batch: {
      type: "list",
      value: "STEPS",
      help: "go in steps such as 1,10%,100%, with --wait; stops at a failure",
    },
    pause: { type: "duration", value: "TIME", default: "10s", help: "pause between two steps" },
    "max-failures": {
      type: "string",
      value: "N|N%",
      help: "stop when more slaves have failed (default: no limit; 0 with --batch)",
    },
    sha: { type: "string", value: "SHA", help: "exactly this commit instead of the newest" },
    "key-file": {
      type: "string",
      value: "FILE",
      env: "SERVER_UPDATE_KEY_FILE",
      help: "sign orders with this key (default: /etc/server-update/master.key if it is there)",
    },
    "secret-file": {
      type: "string",
      value: "FILE",
      env: "SERVER_UPDATE_SECRET_FILE",
      help: "sign with the secret that the slaves share (default: secret beside the list if it is there)",
    },
    via: {
      type: "string",
      value: "URL|FILE",
      help: "the bus of slaves that the list names bus://… (default: /etc/server-update/bus.yml)",
    },
    ca: { type: "string", value: "FILE", help: "PEM of the authority behind https:// slaves" },
    failed: {
      type: "string",
      value: "FILE",
      help: "list of the failed ones (default: REPO.failed.txt in /var/lib/server-update for root, in ~/.local/state/server-update for others)",
    },
    status: { type: "boolean", help: "show what every slave serves; change nothing" },
    verify: { type: "boolean", help: "with --status: every slave also compares its files" },
    converge: { type: "boolean", help: "update slaves that the last run did not reach" },
    "dry-run": { type: "boolean", help: "show which slaves would be asked" },
    notify: {
      type: "string",
      value: "FILE",
      default: "/etc/server-update/notify.yml",
      env: "SERVER_UPDATE_NOTIFY",
      help: "the file that says who gets messages when slaves fail or differ",
    },
    "notify-test": { type: "boolean", help: "send a sample to each, and do nothing else" },
  },
  examples: [
    ["server-update site", "tell all slaves, without waiting for the result"],
    ["server-update site --wait", "the same, and wait for the result"],
    ["server-update site --batch 1,10%,100%", "one first, then a tenth, then the rest"],
    ["server-update --status", "show which slave serves which commit"],
    ["server-update --converge", "from cron: update slaves that were down"],
  ],
  exits: { 1: "a slave failed, was not asked, or differs (--status)" },
  environment: [
    ["STATE_DIRECTORY", "the folder for the desired state and the lists of failed slaves"],
    ["HOOK_SHA", "with HOOK_REPO and HOOK_REF, in on_success: of hook-server: the commit"],
  ],
  subcommands: { keygen },
  notes:
    "--json prints an object a line as the answers come: repo, target, ok, before, sha, seconds, error.",
  run: async ({ flags, args, terminal, signal }) => {
    const { serverUpdate } = await import("../lib/fleet/master/update.ts");
    return await serverUpdate(args[0], flags, terminal, signal);
  },
});

void runScript(command);

#!/usr/bin/env -S deno run -A
import { createInterface } from "node:readline/promises";
import process from "node:process";
import { type CommandInput, defineCommand, runScript } from "../lib/cli.ts";
import { UsageError } from "../lib/errors.ts";
import {
  checkOnce,
  command as ask,
  effectiveConfig,
  fetchOnly,
  launchIn,
  status,
} from "../lib/launch/commands.ts";
import { installInto, verifyOffered } from "../lib/launch/first-install.ts";
import type { InstallOptions } from "../lib/launch/install.ts";
import { statusLines } from "../lib/launch/status.ts";

const trustFlags = {
  key: { type: "string", value: "FINGERPRINT", help: "the key that must have signed everything" },
  "key-file": { type: "string", value: "FILE", help: "the same, as a file with the public key" },
  timeout: {
    type: "duration",
    value: "TIME",
    help: "for VERSION and signatures; in as long an archive must come on by 64 KB (default: updates.timeout, 30s)",
  },
  "allow-downgrade": { type: "boolean", help: "take a release older than one accepted before" },
} as const;

const folderFlag = {
  type: "string",
  value: "DIR",
  default: ".",
  help: "the deploy directory",
} as const;

const verify = defineCommand({
  name: "launchfit verify",
  summary: "fetch and check what the web folder offers, without installing it",
  usage: ["launchfit verify [flags]"],
  flags: { dir: folderFlag, ...trustFlags },
  examples: [
    ["launchfit verify", "what would an update say?"],
    ["launchfit verify --timeout 5s", "give up soon"],
  ],
  exits: { 4: "refused; the reason is printed" },
  run: async ({ flags, terminal, signal }) => {
    const options = installOptions({ flags, terminal, signal, args: [] });
    const result = await verifyOffered(flags.dir, options);
    terminal.print(
      `${result.name}: good, signed by ${result.key.join(", ")}${result.current ? " (installed)" : ""}`,
    );
    terminal.printJson(result);
  },
});

const dirFlags = { dir: folderFlag } as const;

const check = defineCommand({
  name: "launchfit check",
  summary: "look for a new version now, and update to it",
  usage: ["launchfit check [--once] [flags]"],
  flags: {
    dir: folderFlag,
    ...trustFlags,
    once: {
      type: "boolean",
      help: "where no launchfit runs (cron): install and switch, start nothing",
    },
  },
  examples: [
    ["launchfit check", "ask the launchfit that runs here, wait for the result"],
    ["launchfit check --once", "from cron"],
  ],
  exits: { 4: "refused; the reason is printed, the old version stays" },
  run: async ({ flags, terminal, signal }) => {
    const options = { ...installOptions({ flags, terminal, signal, args: [] }), signal };
    const { result, version, updated } = flags.once
      ? await checkOnce(flags.dir, options)
      : await ask(flags.dir, { command: "check" });
    terminal.print(String(result));
    terminal.printJson({ version, result, updated });
  },
});

const fetch = defineCommand({
  name: "launchfit fetch",
  summary: "download and verify a new version into releases/, and switch nothing",
  usage: ["launchfit fetch [--look] [flags]"],
  flags: {
    dir: folderFlag,
    ...trustFlags,
    look: { type: "boolean", help: "only say what is offered" },
    conditional: { type: "boolean", help: "say nothing when VERSION is the one of the last time" },
  },
  examples: [
    ["launchfit fetch", "ahead of time; launchfit check switches to it later"],
    ["launchfit fetch --look --json", "for a script"],
  ],
  exits: { 4: "refused; the reason is printed" },
  run: async (input) => {
    const { look, conditional, dir } = input.flags;
    const options = { ...installOptions(input), signal: input.signal, look, conditional };
    const offer = await fetchOnly(dir, options);
    const what = offer?.isNew ? (look ? "is offered" : `is in ${offer.folder}`) : "is current";
    input.terminal.print(offer ? `${offer.version} ${what}` : "nothing has changed");
    input.terminal.printJson({ offer });
  },
});

const statusCommand = defineCommand({
  name: "launchfit status",
  summary: "version, uptime, restarts, health, the last check and update",
  usage: ["launchfit status [flags]"],
  flags: dirFlags,
  examples: [
    ["launchfit status", "of this directory"],
    ["launchfit status --dir /srv/app --json", "for a script"],
  ],
  exits: { 1: "the app does not run", 4: "updates are refused; the reason is shown" },
  run: async ({ flags, terminal }) => {
    const now = await status(flags.dir);
    for (const line of statusLines(now, terminal)) terminal.print(line);
    terminal.printJson(now);
    if (now.lastCheck?.code === 4) return 4;
    return now.state === "running" ? 0 : 1;
  },
});

/** A command that is a question to the running launchfit and a line about its answer. */
function question(
  name: string,
  summary: string,
  tell: (answer: Record<string, unknown>) => string,
) {
  return defineCommand({
    name: `launchfit ${name}`,
    summary,
    usage: [`launchfit ${name} [flags]`],
    flags: dirFlags,
    examples: [
      [`launchfit ${name}`, "of this directory"],
      [`launchfit ${name} --dir /srv/app`, "of another"],
    ],
    run: async ({ flags, terminal }) => {
      const { ok: _, ...answer } = await ask(flags.dir, { command: name });
      terminal.print(tell(answer));
      terminal.printJson(answer);
    },
  });
}

const restart = question(
  "restart",
  "end the app and start it again",
  ({ version, pid }) => `restarted ${version}, process ${pid}`,
);
const stop = question("stop", "end the app and launchfit", () => "ending");

const rollback = defineCommand({
  name: "launchfit rollback",
  summary: "go back to the version before, or to one that is still installed",
  usage: ["launchfit rollback [VERSION] [flags]"],
  args: [["VERSION", "as launchfit list shows it; default: the one before"]],
  maxArgs: 1,
  flags: dirFlags,
  examples: [
    ["launchfit rollback", "undo the last update; it is not taken again until VERSION changes"],
    ["launchfit rollback 1.23.42a", "to that one"],
  ],
  run: async ({ flags, args: [version], terminal }) => {
    const answer = await ask(flags.dir, {
      command: "rollback",
      ...(version === undefined ? {} : { version }),
    });
    terminal.print(String(answer["result"]));
    terminal.printJson({ version: answer["version"], result: answer["result"] });
  },
});

const list = defineCommand({
  name: "launchfit list",
  summary: "the installed versions, the newest first",
  usage: ["launchfit list [flags]"],
  flags: dirFlags,
  examples: [
    ["launchfit list", "the current one has a star"],
    ["launchfit list --json", "for a script"],
  ],
  run: async ({ flags, terminal }) => {
    const { version, installed } = await status(flags.dir);
    for (const each of installed) terminal.print(`${each === version ? "*" : " "} ${each}`);
    terminal.printJson({ current: version, installed });
  },
});

const log = defineCommand({
  name: "launchfit log",
  summary: "the last lines of the app and of launchfit",
  usage: ["launchfit log [-f] [-n 50] [flags]"],
  flags: {
    dir: folderFlag,
    follow: { type: "boolean", short: "f", help: "go on with what comes" },
    lines: {
      type: "number",
      value: "N",
      short: "n",
      default: 50,
      help: "how many of the last lines",
    },
  },
  examples: [
    ["launchfit log -f", "until Ctrl-C"],
    ["launchfit log -n 200", "more of them"],
  ],
  run: async ({ flags: { dir, follow, lines }, terminal }) => {
    await ask(dir, { command: "log", follow, lines }, (value) => {
      terminal.print(String(value["line"]));
      terminal.printJson(value);
    });
  },
});

const config = defineCommand({
  name: "launchfit config",
  summary: "the configuration with all defaults, and where each value comes from",
  usage: ["launchfit config [flags]"],
  flags: dirFlags,
  examples: [
    ["launchfit config", "a table"],
    ["launchfit config --json", "for a script"],
  ],
  run: async ({ flags, terminal }) => {
    const rows = await effectiveConfig(flags.dir);
    const shown = rows.map(({ name, value, origin }) => [
      name,
      JSON.stringify(value) ?? "–",
      origin,
    ]);
    for (const line of terminal.table(shown, { header: ["key", "value", "from"] }))
      terminal.print(line);
    terminal.printJson(rows);
  },
});

const command = defineCommand({
  name: "launchfit",
  summary: "install a signed app from a web folder; run it, watch it, keep it up to date",
  usage: [
    "launchfit URL [--key FINGERPRINT | --key-file FILE] [flags]",
    "launchfit [--dir DIR]",
    "launchfit COMMAND",
  ],
  args: [["URL", "install from this web folder; without it the app of the directory is run"]],
  maxArgs: 1,
  flags: {
    dir: folderFlag,
    ...trustFlags,
    insecure: {
      type: "boolean",
      help: "at the first install, believe the key that the web folder shows",
    },
  },
  examples: [
    ["launchfit https://example.com/app-updates --key 0123…CDEF", "install into this directory"],
    [
      "launchfit https://example.com/app-updates --key-file publisher.asc",
      "the same, with the key at hand",
    ],
  ],
  exits: { 4: "refused for safety; nothing was installed, the old version stays" },
  subcommands: {
    check,
    config,
    fetch,
    list,
    log,
    restart,
    rollback,
    status: statusCommand,
    stop,
    verify,
  },
  ownSignals: (args) => args.length === 0,
  run: async (input) => {
    const { flags, args, terminal } = input;
    const [url] = args;
    if (url === undefined) return runApp(input);
    const progress = terminal.progress({ label: "fetching", unit: "bytes" });
    const result = await installInto(flags.dir, url, {
      ...installOptions(input),
      insecure: flags.insecure,
      confirm: process.stdin.isTTY && terminal.isTTY ? confirm : undefined,
      onProgress: (done, total) => {
        if (total !== undefined) progress.setTotal(total);
        progress.update(done);
      },
    }).finally(() => progress.end());
    terminal.print(
      `${result.name} ${result.changed ? "installed" : "is installed already"} in ${result.folder}`,
    );
    terminal.printJson(result);
  },
});

/** Run the app in the foreground; TERM and INT end it, other signals are passed on to it. */
async function runApp(input: Parameters<typeof installOptions>[0] & { flags: { dir: string } }) {
  const { terminal, flags } = input;
  const stopping = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const) process.on(name, () => stopping.abort());
  const launcher = await launchIn(flags.dir, {
    ...installOptions(input),
    stopping,
    show: (line) => terminal.note(line),
  });
  for (const name of ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH"] as const) {
    process.on(name, () => launcher.passOn(name));
  }
  return launcher.ended;
}

function installOptions({
  flags,
  terminal,
  signal,
}: Omit<CommandInput<typeof trustFlags>, "args"> & { args: string[] }): InstallOptions {
  if (flags.key !== undefined && flags["key-file"] !== undefined)
    throw new UsageError("give --key or --key-file, not both");
  return {
    key: flags.key,
    keyFile: flags["key-file"],
    timeout: flags.timeout,
    allowDowngrade: flags["allow-downgrade"],
    signal,
    note: (line) => terminal.note(line),
  };
}

async function confirm(fingerprint: string, names: string[], folder: string): Promise<boolean> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await lines.question(
      `${folder} is signed by the key\n  ${fingerprint}\n  ${names.join(", ")}\nIs this the publisher's key? [y/N] `,
    );
    return /^y(?:es)?$/i.test(answer.trim());
  } finally {
    lines.close();
  }
}

await runScript(command);

#!/usr/bin/env -S deno run -A
import { createInterface } from "node:readline/promises";
import process from "node:process";
import { type CommandInput, defineCommand, runScript } from "../lib/cli.ts";
import { UsageError } from "../lib/errors.ts";
import { installInto, verifyOffered } from "../lib/launch/first-install.ts";
import type { InstallOptions } from "../lib/launch/install.ts";

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

const command = defineCommand({
  name: "launchfit",
  summary: "install a signed app from a web folder",
  usage: ["launchfit URL [--key FINGERPRINT | --key-file FILE] [flags]", "launchfit verify"],
  args: [["URL", "the web folder with VERSION in it"]],
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
  subcommands: { verify },
  run: async (input) => {
    const { flags, args, terminal } = input;
    const [url] = args;
    if (url === undefined)
      throw new UsageError("the URL of a web folder is missing; see launchfit --help");
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

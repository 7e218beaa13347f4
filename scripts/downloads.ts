import { defineCommand, runScript } from "../lib/cli/command.ts";
import { UsageError } from "../lib/core/errors.ts";

const command = defineCommand({
  name: "downloads",
  summary: "fetch what manifest.txt and cloudinary.txt list into downloads/",
  usage: ["downloads [DIR] [flags]"],
  args: [["DIR", "the folder with manifest.txt; default: the current one"]],
  maxArgs: 1,
  flags: {
    jobs: {
      type: "number",
      value: "N",
      short: "j",
      help: "files at once (default: 16, up to 50 while they are small)",
    },
    "per-host": {
      type: "number",
      value: "N",
      help: "files at once from one host (default: no limit)",
    },
    check: { type: "boolean", help: "hash the files again and ask the servers for newer ones" },
    force: { type: "boolean", help: "fetch everything again" },
    prune: { type: "boolean", help: "move what is no longer listed to downloads/old/" },
    print: { type: "boolean", help: "print the manifest that both files stand for; fetch nothing" },
    manifest: {
      type: "string",
      value: "FILE",
      help: "read this in place of both files; - for standard input",
    },
    wait: { type: "boolean", help: "wait for another run in this folder to end" },
    "max-size": { type: "size", default: "10G", help: "refuse a larger file" },
    stall: {
      type: "duration",
      default: "30s",
      help: "give up on a connection that receives nothing for this long",
    },
    retries: {
      type: "number",
      value: "N",
      default: 5,
      help: "retries after a temporary failure",
    },
  },
  examples: [
    ["downloads", "fetch what is new in the current folder's manifest"],
    ["downloads site --check --prune", "ask for newer ones, put away what is no longer listed"],
    ["make-list | downloads --manifest -", "fetch what another program lists"],
  ],
  exits: {
    1: "a file failed; the others are fetched",
    2: "a wrong line or flag, nothing was fetched",
    4: "a path that would leave the folder, nothing was fetched",
  },
  environment: [
    [
      "http_proxy, https_proxy, all_proxy",
      "proxies, as curl reads them; no_proxy names exceptions",
    ],
    ["NETRC", "the file with logins (default: ~/.netrc)"],
  ],
  async run({ flags, args, terminal, signal }) {
    const dir = args[0] ?? ".";
    for (const name of ["jobs", "per-host"] as const)
      if (flags[name] === 0) throw new UsageError(`--${name} 0: it must be at least 1`);
    const { downloads, printManifest } = await import("../lib/downloads/downloads.ts");
    if (flags.print) return await printManifest({ dir, manifest: flags.manifest }, terminal);
    const good = await downloads(
      {
        dir,
        manifest: flags.manifest,
        jobs: flags.jobs,
        perHost: flags["per-host"],
        check: flags.check,
        force: flags.force,
        prune: flags.prune,
        maxSize: flags["max-size"],
        stall: flags.stall,
        retries: flags.retries,
        wait: flags.wait,
        signal,
      },
      terminal,
    );
    return good ? 0 : 1;
  },
});

void runScript(command);

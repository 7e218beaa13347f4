import { defineCommand, type Live } from "../../lib/cli/command.ts";
import { formatSize } from "../../lib/core/units.ts";
import { expires, keyFlags, out, seconds, signers } from "./flags.ts";

const versions: Live = async ({ flags }) => {
  const { list } = await import("../../lib/release/release.ts");
  return (await list(flags.out ?? out.default)).map(({ version }) => version);
};

export const refreshCommand = defineCommand({
  name: "release refresh",
  summary: "sign VERSION again, with a new DATE and EXPIRES",
  usage: ["release refresh [flags]"],
  flags: { out, ...keyFlags, expires },
  examples: [
    ["release refresh", "before VERSION expires; from cron, once a month"],
    ["release refresh --expires 1d", "for a folder that is refreshed every hour"],
  ],
  async run({ flags, terminal }) {
    const { refresh } = await import("../../lib/release/release.ts");
    const file = await refresh(flags.out, await signers({ flags, terminal }), flags.expires);
    // cron mails what is printed
    if (!terminal.quiet)
      terminal.print(`${flags.out}/VERSION is good until ${seconds(file.expires)}`);
    terminal.printJson(file);
  },
});

export const withdrawCommand = defineCommand({
  name: "release withdraw",
  summary: "make the previous release current again",
  usage: ["release withdraw VERSION [flags]"],
  args: [["VERSION", "the one that is current and should not be", versions]],
  minArgs: 1,
  maxArgs: 1,
  flags: {
    out,
    ...keyFlags,
    to: {
      type: "string",
      value: "VERSION",
      help: "go back to this one (default: the one before)",
      complete: versions,
    },
  },
  examples: [
    ["release withdraw 1.23.42b", "clients go back at their next check"],
    ["release withdraw 1.23.42b --to 1.22", "to one that is known to be good"],
  ],
  async run({ flags, args, terminal }) {
    const { withdraw } = await import("../../lib/release/release.ts");
    const file = await withdraw(
      flags.out,
      args[0] ?? "",
      await signers({ flags, terminal }),
      flags.to,
    );
    for (const line of file.current) terminal.print(`current is ${line.file}`);
    terminal.printJson(file);
  },
});

export const listCommand = defineCommand({
  name: "release list",
  summary: "list the archives in the web folder, newest first",
  usage: ["release list [DIR] [flags]"],
  args: [["DIR", "the web folder; the same as --out"]],
  maxArgs: 1,
  flags: { out },
  examples: [
    ["release list", "what is there, and what is current"],
    ["release list ../web", "of another folder"],
    ["release list --json", "the same for a script"],
  ],
  async run({ flags, args, terminal }) {
    const { list, readVersion } = await import("../../lib/release/release.ts");
    const folder = args[0] ?? flags.out;
    const archives = await list(folder);
    const version = await readVersion(folder);
    if (version?.date)
      terminal.note(
        `VERSION is of ${seconds(version.date)}, good until ${seconds(version.expires)}`,
      );
    const rows = archives.map(({ version, platform, size, signed, current, file }) => [
      current ? "current" : "",
      ...[version, platform ?? "any", formatSize(size)],
      ...[seconds(signed) ?? "not signed", file],
    ]);
    const header = ["", "version", "platform", "size", "signed", "file"];
    for (const line of terminal.table(rows, { header, right: [3] })) terminal.print(line);
    terminal.printJson(archives);
  },
});

export const verifyCommand = defineCommand({
  name: "release verify",
  summary: "check a web folder as a client would",
  usage: ["release verify URL|DIR [flags]"],
  args: [["URL|DIR", "the web folder, as published or as on this machine"]],
  minArgs: 1,
  maxArgs: 1,
  flags: {
    key: { type: "string", value: "FINGERPRINT", help: "the key that clients have pinned" },
    "key-file": { type: "string", value: "FILE", help: "the same, as a file" },
    timeout: {
      type: "duration",
      value: "TIME",
      default: "30s",
      help: "for VERSION and signatures",
    },
  },
  examples: [
    ["release verify upload/app-updates", "before the upload"],
    ["release verify https://example.com/app-updates --key 0123…CDEF", "after it"],
  ],
  exits: { 4: "a client would refuse it; the reason is printed" },
  async run({ flags, args, terminal, signal }) {
    const { verifyFolder } = await import("../../lib/release/release.ts");
    const result = await verifyFolder(args[0] ?? "", {
      ...{ key: flags.key, keyFile: flags["key-file"], timeout: flags.timeout, signal },
      note: (line) => terminal.note(line),
    });
    for (const { file, signed } of result.current)
      terminal.print(`${file}: good, signed ${seconds(new Date(signed))}`);
    const until = result.expires ? `, good until ${seconds(result.expires)}` : "";
    terminal.print(`by ${result.key}${until}`);
    terminal.printJson(result);
  },
});

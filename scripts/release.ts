import process from "node:process";
import { createInterface } from "node:readline/promises";
import { type CommandInput, defineCommand, type Flag, runScript } from "../lib/cli.ts";
import { UsageError } from "../lib/errors.ts";
import { defaultOut } from "../lib/release/folder.ts";
import { keygen } from "../lib/release/keygen.ts";
import { pack } from "../lib/release/pack.ts";
import { releaseTag } from "../lib/release/run.ts";
import { openSigner, type Signer } from "../lib/release/signer.ts";
import { list, refresh, withdraw } from "../lib/release/steer.ts";
import { verifyFolder } from "../lib/release/verify.ts";
import { runJson, runTable } from "../lib/run-table.ts";
import { formatSize } from "../lib/units.ts";

const out = {
  type: "string",
  value: "DIR",
  default: defaultOut,
  help: "the web folder",
} satisfies Flag;
const expires = {
  type: "duration",
  value: "TIME",
  help: "how long clients believe this VERSION (default: as before, else 90d)",
} satisfies Flag;
const passphraseFile = {
  type: "string",
  value: "FILE",
  help: "the key's passphrase, in a file that others cannot read",
} satisfies Flag;
const keyFlags = {
  key: {
    type: "string",
    value: "FILE",
    env: "RELEASE_KEY",
    help: "the signing key: a file (default: where keygen puts it) or gpg:FINGERPRINT",
  },
  "passphrase-file": passphraseFile,
} satisfies Record<string, Flag>;

function signer({
  flags,
  terminal,
}: Pick<CommandInput<typeof keyFlags>, "flags" | "terminal">): Promise<Signer> {
  const asks = process.stdin.isTTY && terminal.isTTY;
  return openSigner({
    key: flags.key,
    passphraseFile: flags["passphrase-file"],
    ask: asks ? askInSecret : undefined,
  });
}

/** What is typed is not shown. */
async function askInSecret(question: string): Promise<string> {
  process.stderr.write(question);
  const lines = createInterface({ input: process.stdin, terminal: true });
  const answer = await lines.question("");
  lines.close();
  process.stderr.write("\n");
  return answer;
}

const packCommand = defineCommand({
  name: "release pack",
  summary: "pack a folder into a signed archive in the web folder",
  usage: ["release pack --app NAME --version VERSION [flags]"],
  flags: {
    app: { type: "string", value: "NAME", help: "the app; needed" },
    version: { type: "string", value: "VERSION", help: "dotted hexadecimal, as 1.23.42b; needed" },
    platform: {
      type: "string",
      value: "NAME",
      help: "gnu-linux, linux-musl, darwin or windows (default: it fits any)",
    },
    from: {
      type: "string",
      value: "DIR",
      help: "what is packed, less .releaseignore (default: files in package.json, else build)",
    },
    out,
    ...keyFlags,
    name: { type: "string", value: "TEXT", help: "what people call the release" },
    expires,
    keep: { type: "number", value: "N", help: "leave that many older archives (default: all)" },
  },
  examples: [
    ["release pack --app my-app --version 1.23.42b", "build/ into upload/app-updates/"],
    [
      "release pack --app my-app --version 1.23.42b --platform gnu-linux --from dist --key gpg:0123…CDEF",
      "one platform's, signed by gpg",
    ],
  ],
  exits: { 4: "that version is there with other bytes, or another key's folder" },
  environment: [["SOURCE_DATE_EPOCH", "the time of every file in the archive, in seconds"]],
  async run({ flags, terminal, signal }) {
    const { app, version, platform, from, name, keep } = flags;
    if (app === undefined || version === undefined)
      throw new UsageError("which one? give --app and --version");
    const progress = terminal.progress({ label: "packing", unit: "bytes" });
    const packed = await pack(
      {
        ...{ app, version, platform, from, name, keep, signal },
        ...{ out: flags.out, expires: flags.expires },
        onProgress(done, total) {
          progress.setTotal(total);
          progress.update(done);
        },
      },
      await signer({ flags, terminal }),
    ).finally(() => progress.end());
    const how = packed.changed ? "packed" : "is there already";
    terminal.print(
      `${packed.out}/${packed.file} ${how}, ${formatSize(packed.size)}, ${packed.sha256}`,
    );
    terminal.printJson(packed);
  },
});

const keygenCommand = defineCommand({
  name: "release keygen",
  summary: "make a signing key and print its fingerprint",
  usage: ["release keygen [flags]"],
  flags: {
    out: { type: "string", value: "FILE", help: "default: ~/.config/boatyard/release.asc" },
    name: { type: "string", value: "NAME", help: "whose key it is (default: USER@HOST)" },
    email: { type: "string", value: "ADDRESS", help: "the publisher's address" },
    "passphrase-file": passphraseFile,
  },
  examples: [
    ["release keygen", "a key without passphrase, mode 600"],
    ["release keygen --out my-app.asc --name 'My App'", "one for an app"],
  ],
  async run({ flags, terminal }) {
    const made = await keygen({ ...flags, passphraseFile: flags["passphrase-file"] });
    terminal.note(`made ${made.file}; keep a copy where this machine's end does not reach it`);
    terminal.print(made.fingerprint);
    terminal.printJson(made);
  },
});

const refreshCommand = defineCommand({
  name: "release refresh",
  summary: "sign VERSION anew, with a new DATE and EXPIRES",
  usage: ["release refresh [flags]"],
  flags: { out, ...keyFlags, expires },
  examples: [
    ["release refresh", "before clients take VERSION for a frozen one; from cron, once a month"],
    ["release refresh --expires 1d", "for a folder that is refreshed every hour"],
  ],
  async run({ flags, terminal }) {
    const file = await refresh(flags.out, await signer({ flags, terminal }), flags.expires);
    terminal.print(`${flags.out}/VERSION is good until ${file.expires?.toISOString()}`);
    terminal.printJson(file);
  },
});

const withdrawCommand = defineCommand({
  name: "release withdraw",
  summary: "make the release before a bad one current again",
  usage: ["release withdraw VERSION [flags]"],
  args: [["VERSION", "the one that is current and should not be"]],
  minArgs: 1,
  maxArgs: 1,
  flags: {
    out,
    ...keyFlags,
    to: { type: "string", value: "VERSION", help: "go back to this one (default: the one before)" },
  },
  examples: [
    ["release withdraw 1.23.42b", "clients go back at their next look"],
    ["release withdraw 1.23.42b --to 1.22", "to one that is known to be good"],
  ],
  async run({ flags, args, terminal }) {
    const file = await withdraw(
      flags.out,
      args[0] ?? "",
      await signer({ flags, terminal }),
      flags.to,
    );
    for (const line of file.current) terminal.print(`current is ${line.file}`);
    terminal.printJson(file);
  },
});

const listCommand = defineCommand({
  name: "release list",
  summary: "the archives in the web folder, the newest first",
  usage: ["release list [flags]"],
  flags: { out },
  examples: [
    ["release list", "what is there, and what is current"],
    ["release list --json", "the same for a script"],
  ],
  async run({ flags, terminal }) {
    const archives = await list(flags.out);
    const rows = archives.map(({ version, platform, size, signed, current, file }) => [
      current ? "current" : "",
      ...[version, platform ?? "any", formatSize(size)],
      ...[signed?.toISOString().replace(/\.\d+Z/, "Z") ?? "not signed", file],
    ]);
    const header = ["", "version", "platform", "size", "signed", "file"];
    for (const line of terminal.table(rows, { header, right: [3] })) terminal.print(line);
    terminal.printJson(archives);
  },
});

const verifyCommand = defineCommand({
  name: "release verify",
  summary: "say what a client would say of a web folder",
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
    const options = { ...flags, keyFile: flags["key-file"], signal };
    const result = await verifyFolder(args[0] ?? "", {
      ...options,
      note: (line) => terminal.note(line),
    });
    for (const { file, signed } of result.current)
      terminal.print(`${file}: good, signed ${signed}`);
    terminal.print(`by ${result.key}${result.expires ? `, good until ${result.expires}` : ""}`);
    terminal.printJson(result);
  },
});

export const command = defineCommand({
  name: "release",
  summary: "build a tag apart from the checkout and run the repo's release.sh",
  usage: [
    "release [DIR] --tag TAG [flags]",
    "release pack|keygen|refresh|withdraw|list|verify … (each has --help)",
  ],
  args: [["DIR", "the checkout; default: the current folder"]],
  maxArgs: 1,
  flags: {
    tag: { type: "string", value: "TAG", env: "RELEASE_TAG", help: "the tag to release" },
    sha: {
      type: "string",
      value: "SHA",
      env: "RELEASE_SHA",
      help: "the commit that the event named; a tag that is elsewhere is built all the same, and said",
    },
    wait: { type: "boolean", help: "wait for another release of the repo, instead of exit 3" },
  },
  examples: [
    ["release --tag v1.2.3", "in the checkout; what hook-server does on a release event"],
    ["release /home/site/site --tag v1.2.3 --json", "the result as JSON"],
  ],
  exits: { 1: "a step failed", 3: "another release of the repo is under way" },
  environment: [
    [
      "RELEASE_NAME, RELEASE_URL, RELEASE_PRERELEASE, HOOK_*",
      "passed on to the build and to release.sh",
    ],
  ],
  subcommands: {
    pack: packCommand,
    keygen: keygenCommand,
    refresh: refreshCommand,
    withdraw: withdrawCommand,
    list: listCommand,
    verify: verifyCommand,
  },
  async run({ flags, args, terminal, signal }) {
    if (flags.tag === undefined) throw new UsageError("which release? name its tag with --tag");
    const result = await releaseTag({
      dir: args[0] ?? ".",
      tag: flags.tag,
      sha: flags.sha,
      wait: flags.wait,
      terminal,
      signal,
    });
    terminal.printJson(runJson(result));
    for (const line of runTable("release", result, terminal)) terminal.print(line);
    return result.code;
  },
});

await runScript(command);

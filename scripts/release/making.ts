import { defineCommand } from "../../lib/cli/command.ts";
import { UsageError } from "../../lib/core/errors.ts";
import { formatSize } from "../../lib/core/units.ts";
import { expires, keyFlags, out, passphraseFile, signers } from "./flags.ts";

export const packCommand = defineCommand({
  name: "release pack",
  summary: "pack a folder into a signed archive in the web folder",
  usage: ["release pack --app NAME --version VERSION [flags]"],
  flags: {
    app: { type: "string", value: "NAME", help: "the app; needed" },
    version: { type: "string", value: "VERSION", help: "dotted hexadecimal, as 1.23.42b; needed" },
    platform: {
      type: "string",
      value: "NAME",
      help: "gnu-linux or linux-musl, on which launchfit runs; darwin or windows for others who read VERSION (default: it fits any)",
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
    ["archive=$(release pack --app my-app --version 1.2 --quiet)", "its path alone, for a script"],
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
    const { pack } = await import("../../lib/release/release.ts");
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
      await signers({ flags, terminal }),
    ).finally(() => progress.end());
    const path = `${packed.out}/${packed.file}`;
    const how = packed.changed ? "packed" : "is there already";
    const about = ` ${how}, ${formatSize(packed.size)}, ${packed.sha256}`;
    terminal.print(terminal.quiet ? path : path + about);
    terminal.printJson(packed);
  },
});

export const keygenCommand = defineCommand({
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
    const { keygen } = await import("../../lib/release/release.ts");
    const made = await keygen({ ...flags, passphraseFile: flags["passphrase-file"] });
    terminal.note(`made ${made.file}; keep a copy on another machine`);
    terminal.print(made.fingerprint);
    terminal.printJson(made);
  },
});

import { defineCommand } from "../../lib/cli/command.ts";
import { UsageError } from "../../lib/core/errors.ts";
import { expires, keyFlags, out, signers } from "./flags.ts";

export const keysCommand = defineCommand({
  name: "release keys",
  summary: "list, add and retire the keys that sign",
  usage: [
    "release keys list [DIR]",
    "release keys add FILE|gpg:FINGERPRINT [--root] --key KEY… [flags]",
    "release keys retire FINGERPRINT --key KEY… [flags]",
  ],
  args: [
    ["list|add|retire", "what to do"],
    [
      "KEY",
      "add: the new key, which must be able to sign; retire: its fingerprint; list: the web folder",
    ],
  ],
  minArgs: 1,
  maxArgs: 2,
  flags: {
    out,
    ...keyFlags,
    root: { type: "boolean", help: "add: a key that signs changes of the keys and nothing else" },
    expires,
  },
  examples: [
    ["release keys list", "the keys that VERSION names, and those that were retired"],
    ["release keys add new.asc --key old.asc", "both sign; clients follow at their next check"],
    ["release keys retire 0123…CDEF --key new.asc", "this is permanent"],
    ["release keys add root.asc --root --key a.asc", "from then on only root.asc changes the keys"],
  ],
  exits: { 4: "the web folder belongs to another key, or a change of keys was interrupted" },
  async run({ flags, args, terminal }) {
    const [action = "", key] = args;
    const { changeKeys, listKeys, openSigners } = await import("../../lib/release/release.ts");
    if (action === "list") {
      const listed = await listKeys(key ?? flags.out);
      const rows = listed.keys.map(({ role, fingerprint, names, expires }) => [
        ...[role, fingerprint, names[0] ?? "", expires?.toISOString().slice(0, 10) ?? "never"],
      ]);
      const header = ["", "fingerprint", "name", "expires"];
      for (const line of terminal.table(rows, { header })) terminal.print(line);
      if (listed.serial === 0)
        terminal.note("VERSION names no keys: clients trust the one that they have pinned");
      terminal.printJson(listed);
      return;
    }
    if (action !== "add" && action !== "retire")
      throw new UsageError(`"${action}": one of list, add, retire`);
    const what = {
      add: "name a key file, or gpg:FINGERPRINT",
      retire: "name its fingerprint, as release keys list shows it",
    }[action];
    if (key === undefined) throw new UsageError(`which key? ${what}`);
    const signing = await signers({ flags, terminal });
    const passphraseFile = flags["passphrase-file"];
    const ask = terminal.canAsk ? terminal.askSecret : undefined;
    const added = action === "add" ? await openSigners([key], { passphraseFile, ask }) : [];
    const [add] = added;
    const change = add ? { add, root: flags.root } : { retire: key };
    const file = await changeKeys(flags.out, change, signing, flags.expires);
    terminal.print(`KEYS ${file.keys?.serial}: ${file.keys?.keys.join(", ")}`);
    terminal.note(`upload ${flags.out}, keys/ and KEY.asc included`);
    terminal.printJson(file);
  },
});

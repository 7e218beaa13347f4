import { resolve } from "node:path";
import process from "node:process";
import { type CommandInput, defineCommand, type FlagsIn, type Live } from "../lib/cli/command.ts";
import { UsageError } from "../lib/core/errors.ts";
import { formatSize } from "../lib/core/units.ts";
import { $, cleanEnvironment } from "../lib/exec/exec.ts";
import { exists } from "../lib/files/files.ts";
import { list, refresh, withdraw } from "../lib/release/current.ts";
import { defaultOut, readVersion } from "../lib/release/folder.ts";
import { changeKeys, listKeys } from "../lib/release/keys.ts";
import { checkPack, namedFiles, pack } from "../lib/release/pack.ts";
import { endOf, keygen, openSigners, type Signer } from "../lib/release/signer.ts";
import { verifyFolder } from "../lib/release/verify.ts";

const out = `  --out DIR=${defaultOut}  the web folder` as const;

const expires = "  --expires TIME  how long clients believe this VERSION (default: as before, else 90d)";

const passphraseFile = "  --passphrase-file FILE  the key's passphrase, in a file that others cannot read";

const keyFlags = `\
  --key FILE,…  the signing key: a file (default: where keygen puts it) or gpg:FINGERPRINT; several sign together
                [$RELEASE_KEY]
${passphraseFile}` as const;

/** A time of VERSION, which has whole seconds. */
function seconds(time: Date | undefined): string | undefined {
  return time?.toISOString().replace(/\.\d+Z/, "Z");
}

/** The keys ready to sign. One that soon expires is told. */
async function signers({
  flags,
  terminal,
}: Pick<CommandInput<FlagsIn<typeof keyFlags>>, "flags" | "terminal">): Promise<Signer[]> {
  const opened = await openSigners(flags.key, {
    passphraseFile: flags["passphrase-file"],
    ask: terminal.canAsk ? terminal.askSecret : undefined,
  });
  for (const signer of opened) {
    const end = await endOf(signer);
    if (end && end.getTime() < Date.now() + 90 * 86_400_000)
      terminal.note(
        `the key ${signer.fingerprint} ends on ${end.toISOString().slice(0, 10)}; clients refuse it from then on: ` +
          "hand over with release keys add",
      );
  }
  return opened;
}

/**
 * What npm would publish of the current folder, after its prepack; undefined where package.json names no files.
 * @throws {UsageError} where npm cannot tell, or one that is named without a pattern is not there.
 */
async function listedFiles(signal: AbortSignal): Promise<string[] | undefined> {
  const named = await namedFiles();
  if (!named) return undefined;
  const { ok, stdout, stderr } = await $({
    signal,
    nothrow: true,
    env: cleanEnvironment(process.env),
  })`npm pack --dry-run --json --foreground-scripts=false`;
  if (!ok) {
    const why = stderr.split("\n").find((line) => /^npm error (?!code )/.test(line)) ?? stderr.trim().split("\n")[0];
    throw new UsageError(`npm does not tell which files package.json names: ${why}; or name a folder with --from`);
  }
  const [packed] = JSON.parse(stdout) as { files: { path: string }[] }[];
  for (const name of named)
    if (!/[*?[\]{}!]/.test(name) && !(await exists(name)))
      throw new UsageError(
        `${resolve(name)}, which package.json names in files, is not there; ` +
          "build it first, or name a folder with --from",
      );
  return packed?.files.map(({ path }) => path);
}

const versions: Live = async ({ flags }) => (await list(flags.out ?? defaultOut)).map(({ version }) => version);

export const refreshCommand = defineCommand({
  usage: `
release refresh: sign VERSION again, with a new DATE and EXPIRES

Usage
  release refresh [flags]

Flags
${out}
${keyFlags}
${expires}
  --server URL  where clients look from now on, in place of the address that they have; "" takes that back

Examples
  release refresh                                      before VERSION expires; from cron, once a month
  release refresh --expires 1d                         for a folder that is refreshed every hour
  release refresh --server https://example.org/updates  the web folder moves; keep the old address for the absent
`,
  async run({ flags, terminal }) {
    const file = await refresh(flags.out, await signers({ flags, terminal }), flags.expires, flags.server);
    // cron mails what is printed
    if (!terminal.quiet) terminal.print(`${flags.out}/VERSION is good until ${seconds(file.expires)}`);
    terminal.printJson(file);
  },
});

export const withdrawCommand = defineCommand({
  usage: `
release withdraw: make the previous release current again

Usage
  release withdraw VERSION [flags]

Operands
  VERSION  the one that is current and should not be

Flags
${out}
${keyFlags}
  --to VERSION  go back to this one (default: the one before)

Examples
  release withdraw 1.23.42b           clients go back at their next check
  release withdraw 1.23.42b --to 1.22  to one that is known to be good
`,
  complete: { to: versions, VERSION: versions },
  async run({ flags, args, terminal }) {
    const file = await withdraw(flags.out, args[0] ?? "", await signers({ flags, terminal }), flags.to);
    for (const line of file.current) terminal.print(`current is ${line.file}`);
    terminal.printJson(file);
  },
});

export const listCommand = defineCommand({
  usage: `
release list: list the archives in the web folder, newest first

Usage
  release list [DIR] [flags]

Operands
  [DIR]  the web folder; the same as --out

Flags
${out}

Examples
  release list         what is there, and what is current
  release list ../web  of another folder
  release list --json  the same for a script
`,
  async run({ flags, args, terminal }) {
    const folder = args[0] ?? flags.out;
    const archives = await list(folder);
    const version = await readVersion(folder);
    if (version?.date) terminal.note(`VERSION is of ${seconds(version.date)}, good until ${seconds(version.expires)}`);
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
  usage: `
release verify: check a web folder as a client would

Usage
  release verify URL|DIR [flags]

Operands
  URL|DIR  the web folder, as published or as on this machine

Flags
  --key FINGERPRINT   the key that clients have pinned
  --key-file FILE     the same, as a file
  --timeout TIME=30s  for VERSION and signatures

Examples
  release verify upload/app-updates   before the upload
  release verify https://example.com/app-updates --key 0123…CDEF  after it

Exit codes
  4  a client would refuse it; the reason is printed
`,
  async run({ flags, args, terminal, signal }) {
    const result = await verifyFolder(args[0] ?? "", {
      ...{ key: flags.key, keyFile: flags["key-file"], timeout: flags.timeout, signal },
      note: (line) => terminal.note(line),
    });
    for (const { file, signed } of result.current) terminal.print(`${file}: good, signed ${seconds(new Date(signed))}`);
    const until = result.expires ? `, good until ${seconds(result.expires)}` : "";
    terminal.print(`by ${result.key}${until}`);
    terminal.printJson(result);
  },
});

export const keysCommand = defineCommand({
  usage: `
release keys: list, add and retire the keys that sign

Usage
  release keys list [DIR]
  release keys add FILE|gpg:FINGERPRINT [--root] --key KEY… [flags]
  release keys retire FINGERPRINT --key KEY… [flags]

Operands
  list|add|retire  what to do
  [KEY]            add: the new key, which must be able to sign; retire: its fingerprint; list: the web folder

Flags
${out}
${keyFlags}
  --root  add: a key that signs changes of the keys and nothing else
${expires}

Examples
  release keys list                   the keys that VERSION names, and those that were retired
  release keys add new.asc --key old.asc  both sign; clients follow at their next check
  release keys retire 0123…CDEF --key new.asc  this is permanent
  release keys add root.asc --root --key a.asc  from then on only root.asc changes the keys

Exit codes
  4  the web folder belongs to another key, or a change of keys was interrupted
`,
  async run({ flags, args, terminal }) {
    const [action = "", key] = args;
    if (action === "list") {
      const listed = await listKeys(key ?? flags.out);
      const rows = listed.keys.map(({ role, fingerprint, names, expires }) => [
        ...[role, fingerprint, names[0] ?? "", expires?.toISOString().slice(0, 10) ?? "never"],
      ]);
      const header = ["", "fingerprint", "name", "expires"];
      for (const line of terminal.table(rows, { header })) terminal.print(line);
      if (listed.serial === 0) terminal.note("VERSION names no keys: clients trust the one that they have pinned");
      terminal.printJson(listed);
      return;
    }
    if (action !== "add" && action !== "retire") throw new UsageError(`"${action}": one of list, add, retire`);
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
    if ((file.keys?.keys.length ?? 0) > 1 && file.keys?.roots.length === 0)
      terminal.note(
        "whoever steals one of these keys can retire the others; a key that is kept offline prevents that: " +
          "release keygen --out root.asc; release keys add root.asc --root --key KEY",
      );
    terminal.note(`upload ${flags.out}, keys/ and KEY.asc included`);
    terminal.printJson(file);
  },
});

export const packCommand = defineCommand({
  usage: `
release pack: pack a folder into a signed archive in the web folder

Usage
  release pack --app NAME --version VERSION [flags]

Flags
  --app NAME         the app; needed
  --version VERSION  dotted hexadecimal, as 1.23.42b; needed
  --platform NAME    gnu-linux or linux-musl, on which launchfit runs; darwin or windows for others who read VERSION
                     (default: it fits any)
  --from DIR         what is packed, less .releaseignore
                     (default: what npm pack would, where package.json has files, else build)
${out}
${keyFlags}
  --name TEXT        what people call the release
${expires}
  --keep N           leave that many older archives (default: all)
  --check            check names, version, keys and the web folder; pack nothing

Environment
  SOURCE_DATE_EPOCH  the time of every file in the archive, in seconds

Examples
  release pack --app my-app --version 1.23.42b  build/ into upload/app-updates/
  archive=$(release pack --app my-app --version 1.2 --quiet)  its path alone, for a script
  release pack --app my-app --version 1.23.42b --platform gnu-linux --from dist --key gpg:0123…CDEF
                                      one platform's, signed by gpg

Exit codes
  4  that version is there with other bytes, or another key's folder
`,
  async run({ flags, terminal, signal }) {
    const { app, version, platform, from, name, keep } = flags;
    if (app === undefined || version === undefined) throw new UsageError("which one? give --app and --version");
    if (flags.check) {
      await checkPack({ app, version, platform, name, out: flags.out }, await signers({ flags, terminal }));
      if (!terminal.quiet) terminal.print(`${app} ${version} can be packed into ${flags.out}`);
      return terminal.printJson({ app, version, out: flags.out });
    }
    const files = from === undefined ? await listedFiles(signal) : undefined;
    const progress = terminal.progress({ label: "packing", unit: "bytes" });
    const packed = await pack(
      {
        ...{ app, version, platform, from, files, name, keep, signal },
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
  usage: `
release keygen: make a signing key and print its fingerprint

Usage
  release keygen [flags]

Flags
  --out FILE       default: ~/.config/boatyard/release.asc
  --name NAME      whose key it is (default: USER@HOST)
  --email ADDRESS  the publisher's address
${passphraseFile}

Examples
  release keygen                      a key without passphrase, mode 600
  release keygen --out my-app.asc --name 'My App'  one for an app
`,
  async run({ flags, terminal }) {
    const made = await keygen({ ...flags, passphraseFile: flags["passphrase-file"] });
    terminal.note(`made ${made.file}; keep a copy on another machine`);
    terminal.print(made.fingerprint);
    terminal.printJson(made);
  },
});

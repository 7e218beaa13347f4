import { type CommandInput, defineCommand, type FlagsIn } from "../lib/cli/command.ts";
import { cleanLine, cleanText } from "../lib/core/clean.ts";
import { UsageError } from "../lib/core/errors.ts";
import type { InstallOptions } from "../lib/launch/launch.ts";

export const folderFlag = "  --dir DIR=.  the deploy directory";

export const trustFlags = `\
  --key FINGERPRINT  the key that must have signed everything
  --key-file FILE    the same, as a file with the public key
  --timeout TIME     limit for VERSION and signatures, and for each 64 KB of an archive (default: updates.timeout, 30s)
  --allow-downgrade  take a release older than one accepted before`;

/** The flags that say what is trusted, as the library takes them. */
export function installOptions({
  flags,
  terminal,
  signal,
}: Omit<CommandInput<FlagsIn<typeof trustFlags>>, "args">): InstallOptions {
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

export const list = defineCommand({
  usage: `
launchfit list: list the installed versions, newest first, or the apps of this machine

Usage
  launchfit list [flags]
  launchfit list [--all] [DIR…] [flags]

Operands
  [DIR…]  the apps in these deploy directories

Flags
${folderFlag}
  --all  the apps of this machine: from setup app, units launchfit@NAME, and running ones (other users' for root only)

Examples
  launchfit list                      the current one has a star
  launchfit list --all                each app with its version, state, uptime and memory
  launchfit list --all --quiet --json  for a monitor: the exit code tells whether all is well

Exit codes
  1  of apps: one does not run, is unhealthy or does not answer
  2  of apps: one has no server
  4  of apps: updates of one are refused
`,
  run: async ({ flags, args, terminal }) => {
    const { listApps, listLines, status, worstCode } = await import("../lib/launch/launch.ts");
    if (flags.all || args.length > 0) {
      const apps = await listApps(args, { all: flags.all });
      if (apps.length === 0) terminal.note("no app was found");
      else for (const line of listLines(apps, terminal)) terminal.print(line);
      terminal.printJson(apps);
      return worstCode(apps);
    }
    const { version, installed } = await status(flags.dir);
    if (installed.length === 0) terminal.note(`nothing is installed in ${flags.dir}`);
    for (const each of installed) terminal.print(`${each === version ? "*" : " "} ${each}`);
    terminal.printJson({ current: version, installed });
    return 0;
  },
});

export const config = defineCommand({
  usage: `
launchfit config: show the configuration with all defaults, and the source of each value

Usage
  launchfit config [flags]

Flags
${folderFlag}

Examples
  launchfit config         a table
  launchfit config --json  for a script
`,
  run: async ({ flags, terminal }) => {
    const { effectiveConfig } = await import("../lib/launch/launch.ts");
    const rows = await effectiveConfig(flags.dir);
    const shown = rows.map(({ name, written, origin }) => [name, written, origin].map(cleanLine));
    for (const line of terminal.table(shown, { header: ["key", "value", "from"] })) terminal.print(line);
    terminal.printJson(rows);
  },
});

export const notify = defineCommand({
  usage: `
launchfit notify: send a sample to every target of notify: in launchify.yml

Usage
  launchfit notify test [flags]

Operands
  test  send a sample

Flags
${folderFlag}

Examples
  launchfit notify test               does every target receive messages?
  launchfit notify test --dir /srv/app  of another directory

Exit codes
  1  a target did not accept it
`,
  run: async ({ args, flags, terminal }) => {
    if (args[0] !== "test") throw new UsageError(`"${args[0]}": write launchfit notify test`);
    const { notifyTest } = await import("../lib/launch/launch.ts");
    const results = await notifyTest(flags.dir);
    for (const { target, ok, error } of results) terminal.print(`${target}: ${ok ? "told" : `not told: ${error}`}`);
    terminal.printJson(results);
    return results.every(({ ok }) => ok) ? 0 : 1;
  },
});

export const statusCommand = defineCommand({
  usage: `
launchfit status: show version, uptime, restarts, health, the last check and update

Usage
  launchfit status [flags]

Flags
${folderFlag}

Examples
  launchfit status                    of this directory
  launchfit status --dir /srv/app --json  for a script

Exit codes
  1  the app does not run, or launchfit does not answer
  2  launchify.yml has a mistake, or names no server and does not say updates: false
  4  updates are refused; the reason is shown
`,
  run: async ({ flags, terminal }) => {
    const { status, statusCode, statusLines } = await import("../lib/launch/launch.ts");
    const now = await status(flags.dir);
    for (const line of statusLines(now, terminal)) terminal.print(line);
    terminal.printJson(now);
    return statusCode(now);
  },
});

/** A command that is a question to the running launchfit and a line about its answer. */
function question(name: string, summary: string, tell: (answer: Record<string, unknown>) => string) {
  return defineCommand({
    usage: `
launchfit ${name}: ${summary}

Usage
  launchfit ${name} [flags]

Flags
${folderFlag}

Examples
  launchfit ${name}                 of this directory
  launchfit ${name} --dir /srv/app  of another
`,
    run: async ({ flags, terminal }) => {
      const { ask } = await import("../lib/launch/launch.ts");
      const { ok: _, ...answer } = await ask(flags.dir, { command: name });
      terminal.print(tell(answer));
      terminal.printJson(answer);
    },
  });
}

export const restart = question(
  "restart",
  "end the app and start it again",
  ({ version, pid }) => `restarted ${version}, process ${pid}`,
);
export const stop = question("stop", "end the app and launchfit", () => "ended");

export const rollback = defineCommand({
  usage: `
launchfit rollback: switch back to the previous version, or to another installed one

Usage
  launchfit rollback [VERSION] [flags]

Operands
  [VERSION]  as launchfit list shows it; default: the one before

Flags
${folderFlag}

Examples
  launchfit rollback           undo the last update; it is not taken again until VERSION changes
  launchfit rollback 1.23.42a  to that one
`,
  complete: {
    VERSION: async ({ flags: { dir } }) => {
      const { status } = await import("../lib/launch/launch.ts");
      return (await status(dir ?? ".")).installed;
    },
  },
  run: async ({ flags, args: [version], terminal, signal }) => {
    const options = { signal, note: (line: string) => terminal.note(line) };
    const library = await import("../lib/launch/launch.ts");
    const done = await library.rollback(flags.dir, version, options);
    terminal.print(done.result);
    terminal.printJson({ version: done.version, result: done.result });
  },
});

export const log = defineCommand({
  usage: `
launchfit log: show the last lines of output of the app and of launchfit

Usage
  launchfit log [-f] [-n 50] [flags]

Flags
${folderFlag}
  -f, --follow      follow new lines
  -n, --lines N=50  how many of the last lines

Examples
  launchfit log -f      until Ctrl-C
  launchfit log -n 200  more of them
`,
  run: async ({ flags: { dir, follow, lines }, terminal }) => {
    const { showLog } = await import("../lib/launch/launch.ts");
    let shown = 0;
    const followed = await showLog(dir, { lines, follow }, (value) => {
      shown += 1;
      terminal.print(cleanText(String(value["line"]), true));
      terminal.printJson(value);
    });
    if (shown === 0) terminal.note(`no output yet in ${dir}`);
    if (!followed) terminal.note(`no launchfit runs in ${dir}: nothing more comes`);
  },
});

export const check = defineCommand({
  usage: `
launchfit check: check for a new version now, and install it

Usage
  launchfit check [--once] [flags]

Flags
${folderFlag}
${trustFlags}
  --once  where no launchfit runs (cron): install and switch, start nothing

Examples
  launchfit check         ask the launchfit that runs here, wait for the result
  launchfit check --once  from cron

Exit codes
  4  refused; the reason is printed, the old version stays
`,
  run: async ({ flags, terminal, signal }) => {
    const options = { ...installOptions({ flags, terminal, signal }), signal };
    const { ask, checkOnce } = await import("../lib/launch/launch.ts");
    const { result, version, updated } = flags.once
      ? await checkOnce(flags.dir, options)
      : await ask(flags.dir, { command: "check" });
    terminal.print(String(result));
    terminal.printJson({ version, result, updated });
  },
});

export const deploy = defineCommand({
  usage: `
launchfit deploy: make a release of a folder, and change to it, without a web folder or a key

Usage
  launchfit deploy DIR FOLDER [flags]

Operands
  DIR     the deploy directory: its launchify.yml names the app, and says updates: false
  FOLDER  what the build made; files that have not changed are links to the release before

Flags
  --as VERSION   dotted hexadecimal; default: the time, as 20261124.101500
  --config FILE  the release's launchify.yml, in place of the folder's own

Examples
  launchfit deploy /srv/app dist               the launchfit that runs there starts it, watches it, undoes it
  launchfit deploy /srv/app dist --as 1.23.4a  as this version

Exit codes
  1  it did not hold up, and the version before runs again; the reason and the health answer are printed
`,
  run: async ({ flags, args: [directory = "", folder = ""], terminal, signal }) => {
    const { deployFolder } = await import("../lib/launch/launch.ts");
    const options = { version: flags.as, config: flags.config, signal, note: (line: string) => terminal.note(line) };
    const done = await deployFolder(directory, folder, options);
    terminal.print(done.result);
    terminal.printJson(done);
  },
});

export const fetch = defineCommand({
  usage: `
launchfit fetch: download and verify a new version into releases/, without switching to it

Usage
  launchfit fetch [--look] [flags]

Flags
${folderFlag}
${trustFlags}
  --look         only say what is offered
  --conditional  say nothing if VERSION has not changed since the last time

Examples
  launchfit fetch                ahead of time; launchfit check switches to it later
  launchfit fetch --look --json  for a script

Exit codes
  4  refused; the reason is printed
`,
  run: async (input) => {
    const { look, conditional, dir } = input.flags;
    const options = { ...installOptions(input), signal: input.signal, look, conditional };
    const { fetchOnly } = await import("../lib/launch/launch.ts");
    const offer = await fetchOnly(dir, options);
    const what = offer?.isNew ? (look ? "is offered" : `is in ${offer.folder}`) : "is current";
    input.terminal.print(offer ? `${offer.version} ${what}` : "nothing has changed");
    input.terminal.printJson({ offer });
  },
});

export const verify = defineCommand({
  usage: `
launchfit verify: download and verify what the web folder offers, without installing it

Usage
  launchfit verify [flags]

Flags
${folderFlag}
${trustFlags}

Examples
  launchfit verify               what would an update say?
  launchfit verify --timeout 5s  give up soon

Exit codes
  4  refused; the reason is printed
`,
  run: async ({ flags, terminal, signal }) => {
    const options = installOptions({ flags, terminal, signal });
    const { verifyOffered } = await import("../lib/launch/launch.ts");
    const result = await verifyOffered(flags.dir, options);
    terminal.print(`${result.name}: good, signed by ${result.key.join(", ")}${result.current ? " (installed)" : ""}`);
    terminal.printJson(result);
  },
});

import process from "node:process";
import { defineCommand, runScript } from "../lib/cli/command.ts";
import { cleanText } from "../lib/core/clean.ts";
import { UsageError } from "../lib/core/errors.ts";
import { didYouMean } from "../lib/core/names.ts";
import {
  check,
  config,
  deploy,
  fetch,
  folderFlag,
  installOptions,
  list,
  log,
  notify,
  restart,
  rollback,
  statusCommand,
  stop,
  trustFlags,
  verify,
} from "./launchfit-commands.ts";

const subcommands = {
  check,
  config,
  deploy,
  fetch,
  list,
  log,
  notify,
  restart,
  rollback,
  status: statusCommand,
  stop,
  verify,
};

const command = defineCommand({
  usage: `
launchfit: install a signed app from a web folder, run it and update it

Usage
  launchfit URL [--key FINGERPRINT | --key-file FILE] [flags]
  launchfit [--dir DIR]
  launchfit COMMAND

Operands
  [URL]  install from this web folder; without it the app of the directory is run

Flags
${folderFlag}
${trustFlags}
  --insecure  at the first install, trust the key that the web folder shows

Examples
  launchfit https://example.com/app-updates --key 0123…CDEF  install into this directory
  launchfit https://example.com/app-updates --key-file publisher.asc  the same, with the key at hand

Exit codes
  4  refused for safety; nothing was installed, the old version stays
`,
  subcommands,
  ownSignals: (args) => args.length === 0,
  run: async (input) => {
    const { flags, args, terminal } = input;
    const [url] = args;
    if (url === undefined) return runApp(input);
    if (!/^[a-z][a-z0-9+.-]*:/i.test(url))
      throw new UsageError(
        `"${url}" is no command${didYouMean(url, Object.keys(subcommands))} and not the address of a web folder; ` +
          "write https://HOST/PATH/ or file:///PATH/",
      );
    const { installInto } = await import("../lib/launch/launch.ts");
    const confirm = (fingerprint: string, names: string[], folder: string) => {
      const whose = `${folder} is signed by the key\n  ${fingerprint}\n  ${names.join(", ")}`;
      return terminal.confirm(`${whose}\nIs this the publisher's key? [y/N] `);
    };
    const progress = terminal.progress({ label: "fetching", unit: "bytes" });
    const result = await installInto(flags.dir, url, {
      ...installOptions(input),
      insecure: flags.insecure,
      confirm: terminal.canAsk ? confirm : undefined,
      onProgress: (done, total) => {
        if (total !== undefined) progress.setTotal(total);
        progress.update(done);
      },
    }).finally(() => progress.end());
    terminal.print(`${result.name} ${result.changed ? "installed" : "is installed already"} in ${result.folder}`);
    terminal.printJson(result);
  },
});

/** Run the app in the foreground; TERM and INT end it, other signals are passed on to it. */
async function runApp(input: Parameters<typeof installOptions>[0] & { flags: { dir: string } }) {
  const { terminal, flags } = input;
  const stopping = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const) process.on(name, () => stopping.abort());
  const early: NodeJS.Signals[] = [];
  let passOn = (name: NodeJS.Signals): void => void early.push(name);
  for (const name of ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH"] as const) process.on(name, () => passOn(name));
  const { launchIn } = await import("../lib/launch/launch.ts");
  const launcher = await launchIn(flags.dir, {
    ...installOptions(input),
    stopping,
    show: (line) => terminal.note(cleanText(line, true)),
  });
  passOn = (name) => launcher.passOn(name);
  early.forEach(passOn);
  return launcher.ended;
}

void runScript(command);

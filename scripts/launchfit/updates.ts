import { defineCommand } from "../../lib/cli/command.ts";
import { folderFlag, installOptions, trustFlags } from "./flags.ts";

export const check = defineCommand({
  name: "launchfit check",
  summary: "check for a new version now, and install it",
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
    const { ask, checkOnce } = await import("../../lib/launch/launch.ts");
    const { result, version, updated } = flags.once
      ? await checkOnce(flags.dir, options)
      : await ask(flags.dir, { command: "check" });
    terminal.print(String(result));
    terminal.printJson({ version, result, updated });
  },
});

export const fetch = defineCommand({
  name: "launchfit fetch",
  summary: "download and verify a new version into releases/, without switching to it",
  usage: ["launchfit fetch [--look] [flags]"],
  flags: {
    dir: folderFlag,
    ...trustFlags,
    look: { type: "boolean", help: "only say what is offered" },
    conditional: {
      type: "boolean",
      help: "say nothing if VERSION has not changed since the last time",
    },
  },
  examples: [
    ["launchfit fetch", "ahead of time; launchfit check switches to it later"],
    ["launchfit fetch --look --json", "for a script"],
  ],
  exits: { 4: "refused; the reason is printed" },
  run: async (input) => {
    const { look, conditional, dir } = input.flags;
    const options = { ...installOptions(input), signal: input.signal, look, conditional };
    const { fetchOnly } = await import("../../lib/launch/launch.ts");
    const offer = await fetchOnly(dir, options);
    const what = offer?.isNew ? (look ? "is offered" : `is in ${offer.folder}`) : "is current";
    input.terminal.print(offer ? `${offer.version} ${what}` : "nothing has changed");
    input.terminal.printJson({ offer });
  },
});

export const verify = defineCommand({
  name: "launchfit verify",
  summary: "download and verify what the web folder offers, without installing it",
  usage: ["launchfit verify [flags]"],
  flags: { dir: folderFlag, ...trustFlags },
  examples: [
    ["launchfit verify", "what would an update say?"],
    ["launchfit verify --timeout 5s", "give up soon"],
  ],
  exits: { 4: "refused; the reason is printed" },
  run: async ({ flags, terminal, signal }) => {
    const options = installOptions({ flags, terminal, signal, args: [] });
    const { verifyOffered } = await import("../../lib/launch/launch.ts");
    const result = await verifyOffered(flags.dir, options);
    terminal.print(
      `${result.name}: good, signed by ${result.key.join(", ")}${result.current ? " (installed)" : ""}`,
    );
    terminal.printJson(result);
  },
});

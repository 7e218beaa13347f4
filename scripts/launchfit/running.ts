import { defineCommand } from "../../lib/cli/command.ts";
import { cleanText } from "../../lib/core/clean.ts";
import { dirFlags, folderFlag } from "./flags.ts";

export const statusCommand = defineCommand({
  name: "launchfit status",
  summary: "show version, uptime, restarts, health, the last check and update",
  usage: ["launchfit status [flags]"],
  flags: dirFlags,
  examples: [
    ["launchfit status", "of this directory"],
    ["launchfit status --dir /srv/app --json", "for a script"],
  ],
  exits: {
    1: "the app does not run, or launchfit does not answer",
    2: "launchify.yml has a mistake, or names no server and does not say updates: false",
    4: "updates are refused; the reason is shown",
  },
  run: async ({ flags, terminal }) => {
    const { status, statusCode, statusLines } = await import("../../lib/launch/launch.ts");
    const now = await status(flags.dir);
    for (const line of statusLines(now, terminal)) terminal.print(line);
    terminal.printJson(now);
    return statusCode(now);
  },
});

/** A command that is a question to the running launchfit and a line about its answer. */
function question(
  name: string,
  summary: string,
  tell: (answer: Record<string, unknown>) => string,
) {
  return defineCommand({
    name: `launchfit ${name}`,
    summary,
    usage: [`launchfit ${name} [flags]`],
    flags: dirFlags,
    examples: [
      [`launchfit ${name}`, "of this directory"],
      [`launchfit ${name} --dir /srv/app`, "of another"],
    ],
    run: async ({ flags, terminal }) => {
      const { ask } = await import("../../lib/launch/launch.ts");
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
  name: "launchfit rollback",
  summary: "switch back to the previous version, or to another installed one",
  usage: ["launchfit rollback [VERSION] [flags]"],
  args: [
    [
      "VERSION",
      "as launchfit list shows it; default: the one before",
      async ({ flags: { dir } }) => {
        const { status } = await import("../../lib/launch/launch.ts");
        return (await status(dir ?? ".")).installed;
      },
    ],
  ],
  maxArgs: 1,
  flags: dirFlags,
  examples: [
    ["launchfit rollback", "undo the last update; it is not taken again until VERSION changes"],
    ["launchfit rollback 1.23.42a", "to that one"],
  ],
  run: async ({ flags, args: [version], terminal, signal }) => {
    const options = { signal, note: (line: string) => terminal.note(line) };
    const library = await import("../../lib/launch/launch.ts");
    const done = await library.rollback(flags.dir, version, options);
    terminal.print(done.result);
    terminal.printJson({ version: done.version, result: done.result });
  },
});

export const log = defineCommand({
  name: "launchfit log",
  summary: "show the last lines of output of the app and of launchfit",
  usage: ["launchfit log [-f] [-n 50] [flags]"],
  flags: {
    dir: folderFlag,
    follow: { type: "boolean", short: "f", help: "follow new lines" },
    lines: {
      type: "number",
      value: "N",
      short: "n",
      default: 50,
      help: "how many of the last lines",
    },
  },
  examples: [
    ["launchfit log -f", "until Ctrl-C"],
    ["launchfit log -n 200", "more of them"],
  ],
  run: async ({ flags: { dir, follow, lines }, terminal }) => {
    const { showLog } = await import("../../lib/launch/launch.ts");
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

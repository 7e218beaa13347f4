import { type Command, defineCommand } from "../../lib/cli/command.ts";
import { commonFlags, runArgument } from "./flags.ts";

/** hook-server cancel and rerun. */

export const cancel = steering("cancel", "end a run that waits or is in progress");
export const rerun = steering("rerun", "run an ended run again");

function steering(what: "cancel" | "rerun", summary: string): Command {
  return defineCommand({
    name: `hook-server ${what}`,
    summary,
    usage: [`hook-server ${what} RUN`],
    args: [runArgument],
    minArgs: 1,
    maxArgs: 1,
    flags: commonFlags,
    examples: [
      [`hook-server ${what} 20261120T101500Z-3f2a9c`, summary],
      [
        `hook-server ${what} --state /var/lib/boatyard 20261120T101500Z-3f2a9c`,
        "on a server with that state folder",
      ],
    ],
    run: async ({ flags, args, terminal }) => {
      const hook = await import("../../lib/hook/hook.ts");
      await hook.steer(await hook.connect(flags), terminal, what, args[0] ?? "");
    },
  });
}

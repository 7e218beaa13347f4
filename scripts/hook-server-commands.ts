import { type Command, defineCommand, type Live } from "../lib/cli/command.ts";
import { UsageError } from "../lib/core/errors.ts";

/** The newest runs, for completion. */
const runs: Live = async ({ flags: { config, state } }) => {
  const { knownRuns } = await import("../lib/hook/hook.ts");
  return await knownRuns({ config, state });
};

/** The repos of hooks.yml, for completion. */
const repos: Live = async ({ flags: { config, state } }) => {
  const { knownRepos } = await import("../lib/hook/hook.ts");
  return await knownRepos({ config, state });
};

/** The flags that every command of hook-server has. */
export const serverFlags = `\
  --config FILE  the configuration (default: hooks.yml here, else /etc/boatyard/hooks.yml) [$BOATYARD_HOOKS]
  --state DIR    where queue and runs are kept (default: the file's state:, else /var/lib/boatyard for root,
                 ~/.local/state/boatyard for others) [$BOATYARD_STATE]`;

/** The operand of the commands about one run. */
const runOperand = "  RUN  a run's id, as `hook-server list` shows it";

/** `hook-server notify test`. */
export const notify = defineCommand({
  usage: `
hook-server notify: send a sample to every target of notify:

Usage
  hook-server notify test [--config hooks.yml]

Operands
  test  send a sample

Flags
${serverFlags}

Examples
  hook-server notify test  does every target receive messages?

Exit codes
  1  a target did not accept it
`,
  run: async ({ flags, args, terminal }) => {
    if (args[0] !== "test") throw new UsageError(`"${args[0]}" is not "test"`);
    const { sendSample } = await import("../lib/hook/hook.ts");
    return await sendSample(flags, terminal);
  },
});

/** hook-server list, show and log: what there is to see of the runs. */

export const list = defineCommand({
  usage: `
hook-server list: list runs that wait, are in progress or have ended, newest first

Usage
  hook-server list [--repo OWNER/NAME] [--only STATE] [-n 20]
  hook-server list --ignored [--repo OWNER/NAME] [-n 20]

Flags
${serverFlags}
  --repo OWNER/NAME  runs of this repo only
  --only STATE       runs in this state only; one of waiting, starting, running, succeeded, failed, cancelled,
                     superseded
  --ignored          instead of runs, the genuine deliveries that started nothing, with the reason
  -n, --lines N=20   how many

Examples
  hook-server list                    the last 20 runs
  hook-server list --only failed --json  failed ones, for a script
  hook-server list --ignored          why did my push not run?
`,
  complete: { repo: repos },
  run: async ({ flags, terminal }) => {
    const hook = await import("../lib/hook/hook.ts");
    const filter = { repo: flags.repo, state: flags.only, limit: flags.lines };
    const show = flags.ignored ? hook.listIgnored : hook.list;
    if (flags.ignored && flags.only !== undefined)
      throw new UsageError("--ignored lists deliveries, which have no state; leave out --only");
    await show(await hook.connect(flags), terminal, filter);
  },
});

export const show = defineCommand({
  usage: `
hook-server show: show all that is recorded about a run

Usage
  hook-server show RUN

Operands
${runOperand}

Flags
${serverFlags}

Examples
  hook-server show 20261120T101500Z-3f2a9c  its record
  hook-server show --json 20261120T101500Z-3f2a9c  its record as JSON
`,
  complete: { RUN: runs },
  run: async ({ flags, args, terminal }) => {
    const hook = await import("../lib/hook/hook.ts");
    await hook.show(await hook.connect(flags), terminal, args[0] ?? "");
  },
});

export const log = defineCommand({
  usage: `
hook-server log: show the output of a run

Usage
  hook-server log [-f] [RUN]

Operands
  [RUN]  a run's id; default: the newest that was started

Flags
${serverFlags}
  -f, --follow  follow it until the run ends

Examples
  hook-server log                     of the newest run
  hook-server log -f 20261120T101500Z-3f2a9c  as it grows

Exit codes
  1  the run that was followed did not succeed
`,
  complete: { RUN: runs },
  run: async ({ flags, args }) => {
    const hook = await import("../lib/hook/hook.ts");
    return await hook.log(await hook.connect(flags), args[0], flags.follow);
  },
});

/** `hook-server run`. */
export const run = defineCommand({
  usage: `
hook-server run: start a run of a repo, as a push or a release would

Usage
  hook-server run OWNER/NAME [--ref BRANCH | --tag TAG] [--sha SHA] [-f]

Operands
  OWNER/NAME  a repo of hooks.yml

Flags
${serverFlags}
  --ref BRANCH  the branch (default: the first of refs:, else the checkout's)
  --tag TAG     release this tag instead, also one that came before on.release was set
  --sha SHA     the commit, with all its digits (default: the newest of the branch or tag)
  -f, --follow  show its log until it ends

Examples
  hook-server run jostylr/site -f        build the newest commit, watch it
  hook-server run jostylr/site --tag v2  release a tag

Exit codes
  1  the run that was followed did not succeed
`,
  complete: { "OWNER/NAME": repos },
  run: async ({ flags, args: [repo = ""], terminal }) => {
    const { ref: branch, tag, sha, follow } = flags;
    if (branch !== undefined && tag !== undefined) throw new UsageError("give --ref or --tag, not both");
    const hook = await import("../lib/hook/hook.ts");
    return await hook.run(await hook.connect(flags), terminal, { repo, branch, tag, sha }, follow);
  },
});

/** `hook-server send`. */
export const send = defineCommand({
  usage: `
hook-server send: send a signed test delivery, as the repo's forge does when a webhook is made

Usage
  hook-server send OWNER/NAME [--to URL]

Operands
  OWNER/NAME  a repo of hooks.yml

Flags
${serverFlags}
  --to URL  the address that the forge has (default: /hook of the file's url:, else where the server listens)

Examples
  hook-server send jostylr/site  does a push arrive, through the web server in front?

Exit codes
  1  it did not arrive, or was refused
`,
  complete: { "OWNER/NAME": repos },
  run: async ({ flags, args: [repo = ""], terminal }) => {
    const { send: sendPing } = await import("../lib/hook/hook.ts");
    await sendPing(flags, { repo, to: flags.to }, terminal);
  },
});

/** `hook-server status`. */
export const status = defineCommand({
  usage: `
hook-server status: show all repos, failed ones first: last runs, runs in progress, waiting runs

Usage
  hook-server status [--watch]

Flags
${serverFlags}
  -w, --watch  update it until Ctrl-C: each second on a terminal, otherwise when it changes

Examples
  hook-server status          what the page shows, in a terminal
  hook-server status --watch  and update it until Ctrl-C
  hook-server status --json   the same as JSON, for a script
`,
  run: async ({ flags, terminal, signal }) => {
    const hook = await import("../lib/hook/hook.ts");
    await hook.showStatus(await hook.connect(flags), terminal, { watch: flags.watch, signal });
  },
});

/** hook-server cancel and rerun. */

export const cancel = steering("cancel", "end a run that waits or is in progress");
export const rerun = steering("rerun", "run an ended run again");

function steering(what: "cancel" | "rerun", summary: string): Command {
  return defineCommand({
    usage: `
hook-server ${what}: ${summary}

Usage
  hook-server ${what} RUN

Operands
${runOperand}

Flags
${serverFlags}

Examples
  hook-server ${what} 20261120T101500Z-3f2a9c  ${summary}
  hook-server ${what} --state /var/lib/boatyard 20261120T101500Z-3f2a9c  on a server with that state folder
`,
    complete: { RUN: runs },
    run: async ({ flags, args, terminal }) => {
      const hook = await import("../lib/hook/hook.ts");
      await hook.steer(await hook.connect(flags), terminal, what, args[0] ?? "");
    },
  });
}

import { defineCommand, type Live, runScript } from "../lib/cli/command.ts";

const stages: Live = async ({ args }) => {
  const { readBuildConfig } = await import("../lib/builder/build.ts");
  return (await readBuildConfig(args[0] ?? ".")).stages;
};

const command = defineCommand({
  name: "build",
  summary: "bring a checkout up to date and build it",
  usage: ["build [DIR] [flags]"],
  args: [["DIR", "the checkout; default: the current folder"]],
  maxArgs: 1,
  flags: {
    only: { type: "list", value: "A,B", help: "run only these stages", complete: stages },
    skip: { type: "list", value: "A,B", help: "skip these stages", complete: stages },
    from: { type: "string", value: "STAGE", help: "start at this stage", complete: stages },
    ref: {
      type: "string",
      value: "REF",
      env: "HOOK_REF",
      help: "the branch or tag to build; default: the checkout's branch",
    },
    sha: {
      type: "string",
      value: "SHA",
      env: "HOOK_SHA",
      help: "the commit to build; default: the newest of the branch",
    },
    "if-changed": {
      type: "boolean",
      help: "do nothing if the last successful build was of the same commit (for cron)",
    },
    force: { type: "boolean", help: "run every stage, and let litpro write every file again" },
    wait: {
      type: "boolean",
      help: "wait if another build of DIR is in progress, instead of exit 3",
    },
    check: {
      type: "boolean",
      help: "check build.yml, the files of the stages and what they need; run nothing",
    },
    "dry-run": {
      type: "boolean",
      help: "show what each stage would do; fetch and run nothing",
    },
    "notify-test": {
      type: "boolean",
      help: "send a sample to each target in ~/.config/boatyard/notify.yml; build nothing",
    },
  },
  examples: [
    ["build /home/site/site", "pull, downloads, install, litpro, uploads"],
    ["build --only install,litpro", "two stages, in the checkout as it stands"],
    ["build ~/site --if-changed --quiet", "for cron: silent unless there is something new"],
  ],
  exits: {
    1: "a stage failed or took too long",
    3: "another build of DIR is in progress",
  },
  environment: [["HOOK_*, RELEASE_*", "passed on to every stage; HOOK_RUN is the run's id"]],
  notes: "DIR/build.yml names other stages, commands, env and timeout: see docs/build.md.",
  async run({ flags, args, terminal, signal }) {
    const { build, checkBuild, planBuild } = await import("../lib/builder/build.ts");
    const tell = await import("../lib/builder/tell.ts");
    if (flags["notify-test"]) return await tell.testBuildTargets(terminal);
    const options = {
      dir: args[0] ?? ".",
      only: flags.only,
      skip: flags.skip,
      from: flags.from,
      ref: flags.ref,
      sha: flags.sha,
      ifChanged: flags["if-changed"],
      force: flags.force,
      wait: flags.wait,
      terminal,
      signal,
    };
    if (flags.check) {
      const checks = await checkBuild(options);
      terminal.printJson({ stages: checks });
      const rows = checks.map(({ name, result, note }) => [
        name,
        result,
        note.split("\n")[0] ?? "",
      ]);
      for (const line of terminal.table(rows, { header: ["stage", "check", ""] }))
        terminal.print(line);
      const failed = checks.filter(({ result }) => result === "failed");
      for (const { name, note } of failed) terminal.warn(`${name}: ${note}`);
      return failed.length > 0 ? 2 : 0;
    }
    if (flags["dry-run"]) {
      const plan = await planBuild(options);
      terminal.printJson({ stages: plan });
      const rows = plan.map(({ name, does, skip }) => [name, does ?? `skipped: ${skip}`]);
      for (const line of terminal.table(rows, { header: ["stage", "what it would do"] }))
        terminal.print(line);
      return 0;
    }
    const { runJson, runTable } = await import("../lib/run/report.ts");
    const targets = await tell.readBuildTargets();
    const result = await build(options);
    terminal.printJson(runJson(result));
    if (result.result === "unchanged") terminal.note(result.stages.at(-1)?.note ?? "nothing new");
    else for (const line of runTable("build", result, terminal)) terminal.print(line);
    await tell.tellBuild(result, targets, terminal);
    return result.code;
  },
});

void runScript(command);

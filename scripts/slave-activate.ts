import { defineCommand, type Live, runScript } from "../lib/cli/command.ts";
import { UsageError } from "../lib/core/errors.ts";
import { isSafeRef } from "../lib/core/names.ts";
import { formatDuration } from "../lib/core/units.ts";

const served: Live = async ({ flags: { config, repos } }) => {
  const { readSettings, reposIn } = await import("../lib/fleet/settings.ts");
  return await reposIn(await readSettings(config), repos);
};

const command = defineCommand({
  usage: `
slave-activate: make a fresh clone of a repo and switch to it atomically

Usage
  slave-activate REPO [flags]

Operands
  REPO  the repo's name; it is cloned from BASE/REPO.git

Flags
  --config FILE      settings, see templates/slave.yml (default: /etc/boatyard/slave.yml if it is there)
  --repos DIR        where repos are put (default: ~/repos)
  --base URL         where repos come from (default: base: of slave.yml)
  --branch NAME      a branch or tag (default: the remote's HEAD)
  --sha SHA          exactly this commit
  --sha-branch NAME  the branch that --sha is of, so that the remote is not asked
  --back             with --sha: also an older commit than what is served, where slave.yml says allow_back
  --keep N           older trees to keep, at least 1 (default: 2)
  --rollback         switch back to the tree before
  --timeout TIME     limit for git, for check: and for after: (default: 10m)
  --wait             wait for another update of the repo instead of giving up

Examples
  slave-activate site                 bring ~/repos/site to the newest commit
  slave-activate site --base file:///srv/git --branch v2  a tag, from this machine
  slave-activate site --rollback      undo the last update

Exit codes
  1  git, check: or after: failed; the old tree stays in place
  4  the name or the commit was refused
`,
  complete: { REPO: served },
  run: async ({ flags, args, terminal, signal }) => {
    const { activate, rollBack } = await import("../lib/fleet/repo/activate.ts");
    const { checkUser, readSettings, settingsFor } = await import("../lib/fleet/settings.ts");
    const repo = args[0] ?? "";
    if (flags.keep !== undefined && (flags.keep < 1 || !Number.isInteger(flags.keep))) {
      throw new UsageError("--keep must be at least 1: readers of the old tree need it for a while");
    }
    if (flags.rollback && (flags.sha !== undefined || flags.branch !== undefined)) {
      throw new UsageError("--rollback goes neither with --sha nor with --branch");
    }
    const branch = flags["sha-branch"];
    if (branch !== undefined && (flags.sha === undefined || flags.branch !== undefined))
      throw new UsageError("--sha-branch goes with --sha, and without --branch");
    if (flags.back && flags.sha === undefined) throw new UsageError("--back goes with --sha");
    if (branch !== undefined && !isSafeRef(branch))
      throw new UsageError(`--sha-branch: "${branch}" is not a branch name`);
    const read = await readSettings(flags.config);
    await checkUser(read, flags.repos);
    const settings = settingsFor(repo, read, flags);
    const work = flags.rollback ? rollBack : activate;
    const done = await work(repo, {
      settings,
      sha: flags.sha,
      back: flags.back,
      branch,
      wait: flags.wait,
      signal,
      note: (line) => terminal.note(line),
    });
    terminal.printJson(done);
    const from = done.before === undefined || done.before === done.sha ? "" : `${done.before} -> `;
    const how = done.changed ? "" : " (nothing new)";
    terminal.print(`${repo}: ${from}${done.sha ?? "the plain folder"}${how} in ${formatDuration(done.seconds * 1000)}`);
  },
});

void runScript(command);

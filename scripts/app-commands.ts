import process from "node:process";
import { text } from "node:stream/consumers";
import { changedSince, type Record as AppRecord, placesOf, pushedRef, type Spec, specSchema } from "../lib/apps/app.ts";
import { readAppFile } from "../lib/apps/app-file.ts";
import { changeVariables, readVariables, variableNames } from "../lib/apps/env-file.ts";
import { greeting, readUpdates, type RefUpdate, report } from "../lib/apps/packets.ts";
import { deployAll, isOf, launchfitOf, undo as undoRelease, versionOf } from "../lib/apps/release.ts";
import { appThere, asRoot, readRemote } from "../lib/apps/remote.ts";
import { appNames, differences, makeApp, readRecord, removeApp, writeOwned } from "../lib/apps/server.ts";
import { type CommandInput, defineCommand, type FlagsIn, type Live } from "../lib/cli/command.ts";
import { checkValue } from "../lib/config/yaml.ts";
import { cleanLine, cleanText } from "../lib/core/clean.ts";
import { Failure, messageOf, UsageError } from "../lib/core/errors.ts";
import { didYouMean, shortSha } from "../lib/core/names.ts";
import { formatDuration } from "../lib/core/units.ts";
import { $, quoteWord } from "../lib/exec/exec.ts";
import { findScript, withRuntime } from "../lib/exec/scripts.ts";
import { as, currentUser, isRoot, lookUpUser } from "../lib/exec/users.ts";
import { readIfThere } from "../lib/files/files.ts";
import { acquireLock } from "../lib/files/lock.ts";
import { gitIn, textOf } from "../lib/git/git.ts";
import { failedStage } from "../lib/run/report.ts";

const nameFlag = "  --name NAME  an app of this machine (default: that of the git remote boatyard, by ssh)";

type Named = CommandInput<FlagsIn<typeof nameFlag>>;

/**
 * What a command does where the app is; without --name it is this very command there, by ssh.
 * @param words what the command was given, as the server is to get it
 */
async function there(
  { flags, terminal }: Named,
  words: readonly string[],
  here: (record: AppRecord) => Promise<number | void>,
  { input, asks = false }: { input?: string; asks?: boolean } = {},
): Promise<number | void> {
  if (flags.name !== undefined) return await here(await recordOf(flags.name));
  const remote = await readRemote(process.cwd());
  if (!remote)
    throw new UsageError(
      "this repository has no git remote boatyard; make one by boatyard up, or name the app: --name",
    );
  const also = [...(terminal.json ? ["--json"] : []), ...(terminal.quiet ? ["--quiet"] : [])];
  const [verb = "", ...rest] = words;
  const line = asRoot(appThere(verb, "--name", remote.name, ...also, ...rest));
  const stdio = [input === undefined ? "inherit" : "pipe", "inherit", "inherit"] as const;
  const tty = asks && terminal.canAsk && terminal.stdoutIsTTY ? ["-t"] : [];
  const options = { nothrow: true, asks: true, ...(input === undefined ? {} : { input }), stdio: [...stdio] };
  const { exitCode } = await $(options)`ssh ${tty} -- ${remote.login} ${line}`;
  if (exitCode === 255) throw new Failure(`${remote.login} cannot be reached by ssh`);
  return exitCode ?? 1;
}

/** @throws {UsageError} when this machine has no such app. */
async function recordOf(name: string): Promise<AppRecord> {
  const record = /^[a-z][a-z0-9-]*$/.test(name) ? await readRecord(name) : undefined;
  if (record) return record;
  const names = await appNames();
  throw new UsageError(`there is no app "${name}" on this machine${didYouMean(name, names)}; boatyard up makes one`);
}

/** `$` as the app's user: root becomes it. */
async function userShell(name: string) {
  const home = placesOf(name).home;
  return $(isRoot() ? as(await lookUpUser(name), { cwd: home }) : { cwd: home });
}

const nameLive: { name: Live } = { name: appNames };

export const logs = defineCommand({
  usage: `
app logs: show the last lines that the app and its launchfit have printed

Usage
  app logs [-f] [-n 50] [PROCESS]

Operands
  [PROCESS]  web, or a worker; default: all

Flags
${nameFlag}
  -f, --follow      follow new lines
  -n, --lines N=50  how many of the last lines of each

Examples
  app logs -f       until Ctrl-C
  app logs -n 200 mail  of the worker mail
`,
  complete: nameLive,
  run: async (input) => {
    const { flags, args, terminal } = input;
    const words = ["logs", ...(flags.follow ? ["-f"] : []), "-n", String(flags.lines), ...args];
    return await there(input, words, async ({ spec: { name, processes } }) => {
      const chosen = args.length === 0 ? processes : processes.filter((kind) => kind === args[0]);
      if (chosen.length === 0)
        throw new UsageError(`${name} has no process "${args[0]}"${didYouMean(args[0] ?? "", processes)}`);
      const launchfit = await findScript("launchfit");
      const shell = await userShell(name);
      const width = Math.max(...chosen.map(({ length }) => length));
      const show = async (kind: string) => {
        const onLine = (line: string, from: string) => {
          if (from === "stderr") return terminal.note(`${kind}: ${cleanText(line)}`);
          terminal.print(`${processes.length > 1 ? `${kind.padEnd(width)}  ` : ""}${cleanText(line, true)}`);
          terminal.printJson({ process: kind, line });
        };
        const follow = flags.follow ? ["-f"] : [];
        const run = shell({ onLine, nothrow: true });
        await run`${launchfit} log ${follow} -n ${flags.lines} --dir ${placesOf(name).deploy(kind)}`;
      };
      await Promise.all(chosen.map(show));
    });
  },
});

export const status = defineCommand({
  usage: `
app status: show what runs, and where it is reached

Usage
  app status

Flags
${nameFlag}

Examples
  app status         each process with its version, health and uptime
  app status --json  for a script

Exit codes
  1  a process does not run, or is not healthy
`,
  complete: nameLive,
  run: async (input) => {
    const { terminal } = input;
    return await there(input, ["status"], async ({ spec }) => {
      const { name, hosts, branch, processes } = spec;
      const shell = await userShell(name);
      const launchfit = await launchfitOf(name, shell);
      const all = await Promise.all(
        processes.map(async (kind) => ({ process: kind, ...(await launchfit.status(kind)) })),
      );
      const { stdout } = await shell({ nothrow: true })`git -C ${placesOf(name).bare} rev-parse --verify -q ${branch}`;
      const commit = stdout.trim();
      const isWell = ({ pid, health }: (typeof all)[0]) =>
        pid !== undefined && /^(?:well|alive|starting|not asked yet)$/.test(health ?? "");
      const shown = all.map(({ process, pid, version, health, uptime }) => ({
        ...{ process, version, running: pid !== undefined, health, uptime },
      }));
      terminal.printJson({ name, hosts, branch, commit, processes: shown });
      terminal.print(`${name}  ${hosts.map((host) => `https://${host}/`).join(" ")}  ${branch} ${commit.slice(0, 8)}`);
      const rows = all.map((each) => [
        each.process,
        each.version ?? "–",
        each.pid === undefined ? terminal.paint.red("not running") : "running",
        each.uptime === undefined ? "–" : formatDuration(each.uptime),
        cleanLine(each.health ?? ""),
      ]);
      const header = ["process", "version", "state", "uptime", "health"];
      for (const line of terminal.table(rows, { header })) terminal.print(line);
      return all.every(isWell) ? 0 : 1;
    });
  },
});

export const undo = defineCommand({
  usage: `
app undo: go back to the release before; what the app has written stays as it is

Usage
  app undo

Flags
${nameFlag}

Examples
  app undo  the branch stays where it is: the next push, or boatyard up, goes on from there
`,
  complete: nameLive,
  run: async (input) =>
    await there(input, ["undo"], async (record) => {
      const { name } = record.spec;
      if (isRoot()) return await asItsUser(name, "undo", input);
      const lock = await lockOf(name, "undo");
      const before = await versionOf(name, "web");
      const version = await undoRelease(record).finally(() => lock.release());
      input.terminal.print(`${version} runs again, ${before} is undone`);
      input.terminal.printJson({ version, undone: before });
    }),
});

/** The same command as the app's user, who alone may touch its releases. */
async function asItsUser(name: string, verb: string, { terminal }: Pick<Named, "terminal">): Promise<number> {
  const also = [...(terminal.json ? ["--json"] : []), ...(terminal.quiet ? ["--quiet"] : [])];
  const app = withRuntime(process.argv[1] ?? "");
  const stdio: ("ignore" | "inherit")[] = ["ignore", "inherit", "inherit"];
  const shell = await userShell(name);
  return (await shell({ stdio, nothrow: true })`${app} ${verb} --name ${name} ${also}`).exitCode ?? 1;
}

const lockOf = (name: string, what: string) => acquireLock(placesOf(name).lock, { what: `app ${what}`, wait: true });

export const env = defineCommand({
  usage: `
app env: list the names of the app's secrets, or change them; they are its environment variables

Usage
  app env
  app env set [NAME]
  app env unset NAME…

Operands
  [WORDS…]  set, or unset, and names

Flags
${nameFlag}

Examples
  app env                    their names
  app env set SECRET_KEY     asks for the value; or reads it from standard input
  app env set <secrets.env   lines NAME=VALUE
  app env unset SECRET_KEY   one less

The values are on the server alone, in /etc/boatyard/apps/NAME.env (mode 600). The app is started anew with them.
`,
  complete: { ...nameLive, WORDS: async () => ["set", "unset"] },
  run: async (input) => {
    const { args, terminal, flags } = input;
    const [verb, ...names] = args;
    if (verb !== undefined && verb !== "set" && verb !== "unset")
      throw new UsageError(
        `"${verb}": write app env, app env set, or app env unset${didYouMean(verb, ["set", "unset"])}`,
      );
    if (verb === "unset" && names.length === 0) throw new UsageError("name what to unset: app env unset NAME");
    if (names.some((name) => name.includes("=")))
      throw new UsageError("give the name alone: a value on a command line is seen by others; it is asked for");
    let given: string | undefined;
    if (verb === "set") {
      const [name] = names;
      if (names.length > 1) throw new UsageError("set one at a time, or give lines NAME=VALUE on standard input");
      const value = terminal.canAsk && name ? await terminal.askSecret(`${name}: `) : await text(process.stdin);
      given = name === undefined ? value : `${name}=${value.replace(/\r?\n$/, "")}`;
      if (readVariables(given).size === 0) throw new UsageError("standard input has no line NAME=VALUE");
    }
    // by --name it came as lines already
    const words = ["env", ...(verb === undefined ? [] : [verb]), ...(verb === "unset" ? names : [])];
    return await there(
      input,
      words,
      async ({ spec: { name, processes } }) => {
        const { env: path } = placesOf(name);
        const before = (await readIfThere(path)) ?? "";
        if (verb === undefined) {
          for (const each of variableNames(before)) terminal.print(each);
          terminal.printJson({ names: variableNames(before) });
          return;
        }
        const changes = given === undefined ? new Map(names.map((each) => [each, undefined])) : readVariables(given);
        const after = changeVariables(before, changes);
        if (after !== before) await writeOwned(path, after, name);
        const launchfit = await launchfitOf(name, await userShell(name));
        for (const kind of processes)
          if ((await launchfit.status(kind)).pid !== undefined) await launchfit.run(kind, "restart");
        terminal.print(`${[...changes.keys()].join(", ")}: ${verb === "set" ? "set" : "taken away"}`);
        terminal.printJson({ names: variableNames(after) });
      },
      given === undefined || flags.name !== undefined ? {} : { input: `${given}\n` },
    );
  },
});

export const run = defineCommand({
  usage: `
app run: run a command in the app's current release, as its user, with its environment

Usage
  app run -- COMMAND

Operands
  COMMAND…  a program and its words; one word alone is read by /bin/sh

Flags
${nameFlag}

Examples
  app run -- node scripts/migrate.js --all  a program of the release
  app run -- 'ls "$DATA_DIR" | wc -l'       by the shell
`,
  complete: nameLive,
  run: async (input) => {
    const line = input.args.length === 1 ? (input.args[0] ?? "") : input.args.map(quoteWord).join(" ");
    return await there(
      input,
      ["run", "--", line],
      async ({ spec: { name } }) => {
        const { deploy, env: path } = placesOf(name);
        const current = `${deploy("web")}/current`;
        const release = await readIfThere(`${current}/launchify.yml`);
        if (release === undefined) throw new Failure(`${name} has no release yet; push one`);
        const { app } = JSON.parse(release) as { app: { env: { [name: string]: string } } };
        const { parseEnv } = await import("node:util");
        const { PORT: _, NODE_OPTIONS: __, ...variables } = app.env;
        const user = isRoot() ? as(await lookUpUser(name)) : { env: {} };
        const secrets = parseEnv((await readIfThere(path)) ?? "") as { [name: string]: string };
        const options = { ...user, cwd: current, env: { ...user.env, ...secrets, ...variables } };
        const stdio: "inherit"[] = ["inherit", "inherit", "inherit"];
        const text = `export PATH="$PWD/node_modules/.bin:$PATH"; ${line}`;
        return (await $({ ...options, stdio, asks: true, nothrow: true })`/bin/sh -c ${text}`).exitCode ?? 1;
      },
      { asks: true },
    );
  },
});

export const remove = defineCommand({
  usage: `
app remove: remove the app from its server; what it has written stays, unless --purge

Usage
  app remove NAME [--purge]

Operands
  APP  the app's name, to be sure

Flags
${nameFlag}
  --purge  also /home/NAME with data/, and the account

Examples
  app remove my-app  repository, releases, secrets, units and site; /home/my-app/data stays
`,
  complete: nameLive,
  run: async (input) => {
    const { flags, args, terminal } = input;
    const remote = flags.name === undefined ? await readRemote(process.cwd()) : undefined;
    const expected = flags.name ?? remote?.name;
    if (expected !== undefined && args[0] !== expected)
      throw new UsageError(`"${args[0]}" is not this app; write app remove ${expected}`);
    return await there(input, ["remove", args[0] ?? "", ...(flags.purge ? ["--purge"] : [])], async ({ spec }) => {
      await removeApp(spec.name, { purge: flags.purge });
      const data = flags.purge ? "" : `; ${placesOf(spec.name).data} stays`;
      terminal.print(`${spec.name} is removed${data}`);
      terminal.printJson({ removed: spec.name, purged: flags.purge });
    });
  },
});

export const make = defineCommand({
  usage: `
app make: on the server, for boatyard up: make the app that standard input describes, as JSON

Usage
  app make [--dry-run] [--restart]

Flags
  --dry-run  tell what differs, change nothing
  --restart  start what runs anew: Boatyard's own files have changed

Examples
  app make --dry-run --json  what boatyard up asks before it shows its plan
`,
  run: async ({ flags, terminal }) => {
    if (!isRoot()) throw new UsageError("app make is for root");
    let spec: Spec;
    try {
      spec = checkValue(JSON.parse(await text(process.stdin)), specSchema);
    } catch (error) {
      throw new UsageError(`standard input is no description of an app: ${messageOf(error)}`);
    }
    if (!flags["dry-run"]) {
      await makeApp(spec, { restart: flags.restart });
      return 0;
    }
    const { name, branch } = spec;
    const found = await differences(spec);
    const isMade = (await readRecord(name)) !== undefined;
    const shell = isMade ? await userShell(name) : undefined;
    const { stdout = "" } = shell
      ? await shell({ nothrow: true })`git -C ${placesOf(name).bare} rev-parse --verify -q ${`refs/heads/${branch}`}`
      : {};
    const { pid, version } = shell ? await (await launchfitOf(name, shell)).status("web") : {};
    terminal.printJson({ differences: found, commit: stdout.trim(), running: pid === undefined ? "" : version });
    for (const each of found) terminal.print(each);
    return 0;
  },
});

/** An update that is refused: the reason is for the pusher. */
class Rejected extends Failure {}

/**
 * Build a commit and run it, as the app's user and under its lock; then, and only then, the branch is moved to it.
 * This is the one place that says how a push runs.
 * @throws {Rejected} with the reason: what ran before runs.
 */
async function runCommit(
  { spec, ...rest }: AppRecord,
  { old, sha, ref }: RefUpdate,
  say: (line: string) => void,
): Promise<string> {
  const { name, branch } = spec;
  const { bare, checkout } = placesOf(name);
  const lock = await lockOf(name, `push ${shortSha(sha)}`);
  try {
    const git = gitIn(bare);
    const at = await textOf(git({ nothrow: true })`git rev-parse --verify --quiet ${ref}`);
    const zero = "0".repeat(sha.length);
    if (at !== (old === zero ? "" : old))
      throw new Rejected(`${branch} has moved to ${shortSha(at)} meanwhile; fetch it, and push again`);
    const moveRef = async () => {
      if (at !== sha) await git`git update-ref -- ${ref} ${sha} ${old}`;
    };
    // a run that was killed between the switch and here: the same push goes on from there
    const live = await versionOf(name, "web");
    const pushed = await textOf(git({ nothrow: true })`git rev-parse --verify --quiet ${pushedRef}`);
    const { pid } = await (await launchfitOf(name)).status("web");
    if (pushed === sha && live !== undefined && isOf(live, sha) && pid !== undefined) {
      await moveRef();
      say(`${live} runs already`);
      return live;
    }

    const show = async (path: string) => {
      const { ok, stdout } = await git({ nothrow: true })`git show ${`${sha}:${path}`}`;
      return ok ? stdout : undefined;
    };
    const written = await show("launchify.yml");
    if (written === undefined) throw new Rejected("there is no launchify.yml in that commit");
    const around = { packageJson: await show("package.json"), folder: name, server: spec.hosts[0] ?? "" };
    const file = await readAppFile(written, around);
    const changed = changedSince(spec, file);
    if (changed.length > 0)
      throw new Rejected(
        `launchify.yml has another ${changed.join(", ")} than the server was made for; run: boatyard up`,
      );

    await git`git update-ref -- ${pushedRef} ${sha}`;
    const build = await findScript("build");
    const variables = {
      HOOK_EVENT: "push",
      HOOK_REPO: `boatyard/${name}`,
      HOOK_REF: `refs/heads/${branch}`,
      HOOK_SHA: sha,
    };
    const environment = as(currentUser()).env;
    let json = "";
    const onLine = (line: string, from: string) => (from === "stdout" ? (json += line) : say(line));
    const built = $({ env: { ...environment, ...variables }, onLine, nothrow: true });
    const { exitCode } = await built`${build} ${checkout} --wait --json`;
    if (exitCode !== 0) {
      const failed = failedStage(json);
      throw new Rejected(failed ? `${failed.stage}: ${failed.note}` : `the build ended with ${exitCode}`);
    }
    const count = Number(await textOf(git`git rev-list --count ${sha}`));
    const version = await deployAll({ spec, ...rest }, file, { count, sha, say });
    await moveRef();
    return version;
  } finally {
    lock.release();
  }
}

export const receive = defineCommand({
  usage: `
app receive: on the server: git's hook proc-receive of the app's repository; a push is built and run

Usage
  app receive --name NAME

Flags
  --name NAME  the app

Examples
  app receive --name my-app  what the hook runs; git speaks on standard input and output
`,
  // a connection that is lost ends neither the build nor the change to the new version
  ownSignals: true,
  run: async ({ flags, terminal }) => {
    for (const signal of ["SIGHUP", "SIGINT", "SIGPIPE"] as const) process.on(signal, () => {});
    const record = await recordOf(flags.name ?? "");
    const { branch, hosts } = record.spec;
    const say = (line: string) => terminal.note(cleanText(line, true));
    const updates = await readUpdates(process.stdin, () => process.stdout.write(greeting));
    const results = [];
    for (const update of updates) {
      const { ref, sha } = update;
      let wrong: string | undefined;
      if (ref !== `refs/heads/${branch}`) wrong = `only ${branch} is run here`;
      else if (/^0+$/.test(sha)) wrong = `${branch} is what runs; to end it: boatyard app remove`;
      else
        try {
          await runCommit(record, update, say);
          for (const host of hosts) say(`https://${host}/`);
        } catch (error) {
          wrong = messageOf(error);
        }
      results.push({ ref, wrong: wrong === undefined ? undefined : cleanLine(wrong) });
    }
    process.stdout.write(report(results));
    return 0;
  },
});

export const deploy = defineCommand({
  usage: `
app deploy: on the server, for boatyard up: build and run the commit that the branch is at

Usage
  app deploy --name NAME

Flags
  --name NAME  the app

Examples
  app deploy --name my-app  after an undo, or a run that was killed
`,
  complete: nameLive,
  run: async (input) => {
    const { flags, terminal } = input;
    const record = await recordOf(flags.name ?? "");
    const { name, branch } = record.spec;
    if (isRoot()) return await asItsUser(name, "deploy", input);
    const ref = `refs/heads/${branch}`;
    const sha = await textOf(gitIn(placesOf(name).bare)`git rev-parse --verify ${ref}`);
    const version = await runCommit(record, { old: sha, sha, ref }, (line) => terminal.note(cleanText(line, true)));
    terminal.print(`${version} runs`);
    terminal.printJson({ version });
    return 0;
  },
});

import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, realpath, rm } from "node:fs/promises";
import { lookup } from "node:dns/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { readAppFile } from "../lib/apps/app-file.ts";
import { ownFolder } from "../lib/exec/scripts.ts";
import { specOf } from "../lib/apps/app.ts";
import {
  type AppState,
  archiveUrl,
  checkServer,
  dnsWarning,
  hashOf,
  keysIn,
  missingPackages,
  missingRuntimes,
  planUp,
  probe,
  readFacts,
  type Runtime,
  type StepName,
} from "../lib/apps/plan.ts";
import { appThere, asRoot, byShell, checkLogin, readRemote, remoteUrl } from "../lib/apps/remote.ts";
import { defineCommand, runScript } from "../lib/cli/command.ts";
import { atEnd } from "../lib/core/at-exit.ts";
import { cleanText } from "../lib/core/clean.ts";
import { Failure, messageOf, UsageError } from "../lib/core/errors.ts";
import { formatDuration } from "../lib/core/units.ts";
import { $, cleanEnvironment, type CommandOptions } from "../lib/exec/exec.ts";
import { gitIn, textOf } from "../lib/git/git.ts";

const command = defineCommand({
  usage: `
up: run the app of this repository on a server of yours, on https

Usage
  up [[USER@]HOST] [flags]

Operands
  [SERVER]  [USER@]HOST, as ssh takes it; default: that of the git remote boatyard

Flags
  -y, --yes  do not ask
  --dry-run  show the plan, change nothing

Environment
  npm_config_registry  where Node and npm are fetched from, when the server's are too old

Examples
  up root@app.example.com  shows what is missing there, asks, makes it, and pushes
  up                       again: what is ready stays as it is
  git push boatyard main   from then on

The repository's launchify.yml says what runs: see docs/up.md.
`,
  async run({ flags, args, terminal, signal }) {
    const began = Date.now();
    const top = await textOf(inside(gitIn(process.cwd(), { nothrow: true })`git rev-parse --show-toplevel`));
    const git = gitIn(top);
    const known = await readRemote(top);
    const login = args[0] === undefined ? known?.login : checkLogin(args[0]);
    if (login === undefined) throw new UsageError("name the server: boatyard up root@example.com");
    const branch = await textOf(git({ nothrow: true })`git symbolic-ref --quiet --short HEAD`);
    if (branch === "") throw new UsageError("HEAD is on no branch; check one out: git switch main");
    const head = await textOf(git({ nothrow: true })`git rev-parse --verify --quiet HEAD`);
    if (head === "") throw new UsageError("this repository has no commit; run: git commit");

    // an answer that ssh may ask for is asked once: what follows goes through this connection
    const folder = await mkdtemp(join(tmpdir(), "boatyard-"));
    const shared = ["-o", `ControlPath=${join(folder, "s")}`];
    atEnd(async () => {
      await $({ nothrow: true })`ssh ${shared} -O exit -- ${login}`;
      await rm(folder, { recursive: true, force: true });
    });
    const master = [...shared, "-o", "ControlMaster=auto", "-o", "ControlPersist=120"];
    const ssh = (text: string, options: CommandOptions = {}) =>
      $({ signal, asks: true, ...options })`ssh ${master} -- ${login} ${text}`;
    const { stdout: names } = await $`ssh -G -- ${login}`;
    const server = /^hostname (.+)$/m.exec(names)?.[1] ?? login.replace(/^.*@/, "");

    // what is committed is what is pushed
    const show = async (path: string) => {
      const { ok, stdout } = await git({ nothrow: true })`git show ${`HEAD:${path}`}`;
      return ok ? stdout : undefined;
    };
    const written = await show("launchify.yml");
    const example = `app:\n  exec: node server.js\n  health: /\nhost: ${server}`;
    if (written === undefined) throw new UsageError(`HEAD has no launchify.yml; write it, and commit it:\n${example}`);
    const around = { packageJson: await show("package.json"), folder: known?.name ?? basename(top), server };
    const file = await readAppFile(written, around);
    const dirty = await textOf(git`git status --porcelain --untracked-files=no`);
    if (dirty !== "") terminal.note("what is not committed is not pushed");

    const looked = await ssh(byShell(probe), { nothrow: true });
    if (!looked.ok) throw new Failure(`${login} cannot be reached: ${lastLine(looked.stderr)}`);
    const facts = readFacts(looked.stdout);
    checkServer(facts, login);
    const spec = specOf(file, branch, keysIn(facts));
    const files = await ownFiles();
    const isOurs = facts.get("boatyard") === files.version && missingRuntimes(facts).length === 0;
    let state: AppState | undefined;
    const input = JSON.stringify(spec);
    if (isOurs) {
      const asked = await ssh(asRoot(appThere("make", "--dry-run", "--json")), { input, nothrow: true });
      if (!asked.ok) throw new Failure(lastLine(asked.stderr).replace(/^app: /, ""));
      state = JSON.parse(asked.stdout) as AppState;
      const isKnown = state.commit === "" || (await git({ nothrow: true })`git cat-file -e ${state.commit}`).ok;
      if (!isKnown)
        throw new UsageError(
          known
            ? `${branch} on the server is at a commit that is not here; run: git fetch boatyard`
            : `the server has an app ${file.name} of another repository; name this one otherwise: app.name`,
        );
    }
    const host = login.replace(/^.*@/, "");
    const remote = {
      wanted: remoteUrl(file.name, host),
      now: await textOf(git({ nothrow: true })`git config --get remote.boatyard.url`),
    };
    const loginNow = await textOf(git({ nothrow: true })`git config --get remote.boatyard.login`);
    if (loginNow !== login) remote.now = "";
    const plan = planUp({
      ...{ facts, version: files.version, state, head, remote },
      app: { name: file.name, hosts: file.hosts, branch },
    });

    const todo = plan.filter(({ why }) => why !== undefined);
    const urls = file.hosts.map((each) => `https://${each}/`);
    const dry = flags["dry-run"] || todo.length === 0;
    for (const { what, why } of plan)
      terminal.print(why === undefined ? `  ready  ${what}` : `  ${terminal.paint.yellow("make")}   ${what}  (${why})`);
    if (todo.length > 0 && file.tls === undefined)
      for (const each of file.hosts) {
        const warning = dnsWarning(each, await addressesOf(each), await addressesOf(server));
        if (warning !== undefined) terminal.warn(warning);
      }
    if (!file.socket && file.root === undefined && todo.length > 0)
      terminal.note(
        "app.socket is false: other users of the server reach the app's port, and a change waits for its start",
      );
    if (dry) {
      if (todo.length === 0) terminal.print(`nothing to do: ${urls.join(" ")}`);
      terminal.printJson({ steps: plan.map(toJson), urls, done: todo.length === 0 });
      return 0;
    }
    if (!flags.yes) {
      if (!terminal.canAsk) throw new UsageError("there is no terminal to ask on; say --yes");
      if (!(await terminal.confirm("Go on? [y/N] "))) return 1;
    }

    // a step that a killed up has left at work there ends first
    const alone = (text: string) =>
      asRoot(["/bin/sh", "-c", `exec 9>/run/boatyard-up.lock; flock -w 600 9 || exit 3; set -e; ${text}`]);
    const steps: Record<StepName, () => Promise<unknown>> = {
      packages: () => ssh(alone(installPackages(missingPackages(facts)))),
      node: async () => {
        for (const each of missingRuntimes(facts)) {
          const url = archiveUrl(process.env["npm_config_registry"] ?? "https://registry.npmjs.org", each);
          const there = await ssh(alone(installRuntime(each, url)), { nothrow: true });
          // 7: it cannot reach the registry
          if (there.exitCode === 7) await ssh(alone(installRuntime(each)), { input: await download(url, each) });
          else if (!there.ok) throw there;
        }
      },
      boatyard: async () => {
        const env = cleanEnvironment({ COPYFILE_DISABLE: "1" });
        const packed = await $({ env })`tar -czf - -C ${files.folder} ${files.names} | base64`;
        await ssh(alone(installOwn(files.version)), { input: Buffer.from(packed.stdout, "base64") });
      },
      app: async () => {
        const restart = isOurs ? [] : ["--restart"];
        await ssh(alone(`exec ${appThere("make", ...restart).join(" ")}`), { input });
      },
      remote: async () => {
        await git`git config remote.boatyard.url ${remote.wanted}`;
        await git`git config remote.boatyard.fetch ${"+refs/heads/*:refs/remotes/boatyard/*"}`;
        await git`git config remote.boatyard.login ${login}`;
      },
      run: async () => {
        const stdio: CommandOptions["stdio"] = ["inherit", terminal.json ? "ignore" : "inherit", "inherit"];
        const isThere = state?.commit === head;
        const done = isThere
          ? await ssh(asRoot(appThere("deploy", "--name", file.name)), { stdio, nothrow: true })
          : await git({ stdio, nothrow: true, asks: true })`git push boatyard ${`HEAD:refs/heads/${branch}`}`;
        if (!done.ok) throw new Failure("it was not taken, for the reason above; what ran before runs");
      },
    };
    for (const step of todo) {
      const from = Date.now();
      if (terminal.isTTY) terminal.note(`  …      ${step.what}`);
      try {
        await steps[step.name]();
      } catch (error) {
        if (error instanceof Failure) throw new Failure(`${step.what}: ${error.message}`);
        const { stderr = "", stdout = "" } = error as { stderr?: string; stdout?: string };
        const said = `${stdout}\n${stderr}`
          .trim()
          .split("\n")
          .slice(-5)
          .map((line) => cleanText(line))
          .join("\n");
        throw new Failure(`${step.what}: ${said === "" ? messageOf(error) : said}`);
      }
      terminal.print(`  ${terminal.paint.green("done")}   ${step.what}  ${formatDuration(Date.now() - from)}`);
    }
    terminal.print(`${urls.join(" ")} after ${formatDuration(Date.now() - began)}`);
    terminal.printJson({ steps: plan.map(toJson), urls, done: true, seconds: (Date.now() - began) / 1000 });
    return 0;
  },
});

const toJson = ({ name, what, why }: { name: string; what: string; why?: string | undefined }) => ({
  ...{ step: name, what, ready: why === undefined, ...(why === undefined ? {} : { why }) },
});

const lastLine = (text: string) => cleanText(text.trim().split("\n").at(-1) ?? "");

async function inside<T extends { ok: boolean }>(asked: PromiseLike<T>): Promise<T> {
  const done = await asked;
  if (done.ok) return done;
  throw new UsageError("this folder is in no git repository; go into the app's");
}

async function addressesOf(host: string): Promise<string[]> {
  return (await lookup(host, { all: true }).catch(() => [])).map(({ address }) => address);
}

/** The folder from which up was started, whose files the server gets, and a digest of them. */
async function ownFiles(): Promise<{ folder: string; names: string[]; version: string }> {
  const here = dirname(await realpath(process.argv[1] ?? "."));
  for (const folder of [here, join(here, "../dist")]) {
    const names = (await readdir(folder).catch(() => [])).filter((name) => /^[a-z-]+\.mjs$/.test(name)).sort();
    if (!["app.mjs", "build.mjs", "launchfit.mjs"].every((name) => names.includes(name))) continue;
    // the npm package has what several scripts need in lib/
    const chunks = (await readdir(join(folder, "lib")).catch(() => [])).filter((name) => name.endsWith(".mjs")).sort();
    const digest = createHash("sha256");
    for (const name of [...names, ...chunks.map((name) => `lib/${name}`)])
      digest.update(`${name}\0`).update(await readFile(join(folder, name)));
    const all = [...names, ...(chunks.length > 0 ? ["lib"] : [])];
    return { folder, names: all, version: digest.digest("hex").slice(0, 12) };
  }
  throw new UsageError(`${here} has not all scripts of Boatyard, which the server needs; run up from a whole folder`);
}

async function download(url: string, name: Runtime): Promise<Buffer> {
  const response = await fetch(url).catch((error: unknown) => {
    throw new Failure(`neither the server nor this machine can fetch ${url}: ${messageOf(error)}`);
  });
  if (!response.ok) throw new Failure(`${url}: status ${response.status}`);
  const bytes = Buffer.from(await response.arrayBuffer());
  if (createHash("sha512").update(bytes).digest("hex") === hashOf(name)) return bytes;
  throw new Failure(`${url} has another hash than this version of Boatyard expects`);
}

/** What a killed apt has left is finished first. */
function installPackages(names: readonly string[]): string {
  return `export DEBIAN_FRONTEND=noninteractive
dpkg --configure -a
[ -n "$(find /var/lib/apt/lists -name '*_Packages*' -print -quit)" ] || apt-get update -q
install() { apt-get install -q -y --no-install-recommends ${names.join(" ")}; }
install || { apt-get update -q && install; }`;
}

/** Node or npm, by its URL or from standard input, checked before anything of it is used. */
function installRuntime(name: Runtime, url?: string): string {
  const get =
    url === undefined
      ? "cat >$t/archive"
      : `curl -fsSL --connect-timeout 20 --retry 2 -o $t/archive '${url}' || exit 7`;
  const place =
    name === "npm"
      ? `rm -rf $d/npm.new; mkdir -p $d/npm.new; tar -xzf $t/archive -C $d/npm.new --strip-components=1
rm -rf $d/npm; mv $d/npm.new $d/npm
for each in npm npx; do ln -sfn $d/npm/bin/$each-cli.js /usr/local/bin/$each; done; chmod 755 $d/npm/bin/*-cli.js`
      : `tar -xzf $t/archive -C $t package/bin/node; chmod 755 $t/package/bin/node
mv $t/package/bin/node $d/node.new; mv -f $d/node.new $d/node; ln -sfn $d/node /usr/local/bin/node`;
  const wrong = `the archive of ${name} has another hash than this version of Boatyard expects`;
  return `umask 022; d=${ownFolder}/node; mkdir -p $d /usr/local/bin; t=$(mktemp -d); trap 'rm -rf $t' EXIT
${get}
echo '${hashOf(name)}  '$t/archive | sha512sum -c --status || { echo '${wrong}' >&2; exit 1; }
chown -R root:root $d; ${place}; chown -R root:root $d`;
}

/** Each file is replaced in one step; VERSION, by which it counts as there, comes last. */
function installOwn(version: string): string {
  return `umask 022; d=${ownFolder}; mkdir -p $d; rm -rf $d/incoming; mkdir $d/incoming
tar -xzf - -C $d/incoming; chown -R root:root $d/incoming; chmod -R u=rwX,go=rX $d/incoming; chmod 755 $d/incoming/*.mjs
if [ -d $d/incoming/lib ]; then mkdir -p $d/lib; mv -f $d/incoming/lib/*.mjs $d/lib/; rm -rf $d/incoming/lib; fi
mv -f $d/incoming/*.mjs $d/; rmdir $d/incoming
ln -sfn $d/boatyard.mjs /usr/local/bin/boatyard
echo ${version} >$d/VERSION.new; mv $d/VERSION.new $d/VERSION`;
}

void runScript(command);

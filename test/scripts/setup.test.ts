import { chmod, lstat, mkdir, readdir, readFile, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { keyOfSeed, newSeed, nkeyOf } from "../../lib/bus/nkey.ts";
import { formatPublicKey, readPrivateKey } from "../../lib/fleet/keys.ts";
import { type RunOptions, runCommand, runScript, scriptArgv } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const setup = (root: string, args: string[], options: RunOptions = {}) =>
  runScript("setup", [...args, "--yes", "--root", root], options);
const mode = async (path: string) => ((await lstat(path)).mode & 0o7777).toString(8);
/** Every path below, with its mode and content: two equal trees are the same. */
const tree = async (root: string) =>
  (
    await runCommand(
      [
        "sh",
        "-c",
        'cd "$1" && find . -printf "%p %m %l\\n" | sort && find . -type f ! -name "*-" | sort | xargs cat',
        "sh",
        root,
      ],
      { expect: 0 },
    )
  ).stdout;

/** A root on which a person, ada, has an account. */
async function rootWithAda(): Promise<string> {
  const root = tempDir("root-");
  await mkdir(join(root, "etc"));
  await writeFile(join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n");
  return root;
}

test("a server is prepared below another root, and a second time nothing changes", async () => {
  const root = tempDir("root-");
  const first = await setup(root, ["server"], { expect: 0 });
  assert.match(first.stdout, /make +folder \/etc\/boatyard 0755 +configuration and secrets/);
  assert.not.match(first.stdout, /^ready/m);
  assert.match(first.stdout, "On the live system");
  assert.match(first.stdout, "systemctl enable --now hook-server.socket hook-server.service");
  assert.is(await mode(join(root, "etc/server-update/secret")), "600");
  assert.is(await mode(join(root, "var/lib/boatyard")), "711");
  assert.is(await readlink(join(root, "usr/local/bin/build")), "/usr/local/lib/boatyard/build.mjs");
  assert.match(await readFile(join(root, "etc/boatyard/hooks.yml"), "utf8"), /^repos: \{\}$/m);
  const key = join(root, "etc/server-update/master.key");
  assert.is(
    formatPublicKey(await readPrivateKey(key)),
    await readFile(`${key}.pub`, "utf8").then((text) => text.trim()),
  );
  assert.is(`${await mode(key)} ${await mode(`${key}.pub`)}`, "600 644");
  const before = await tree(root);
  const second = await setup(root, ["server"], { expect: 0 });
  assert.match(second.stderr, "nothing was missing");
  // what is ready is one line
  assert.match(second.stdout, /^ready +(\d+) of \1\n/);
  assert.not.match(second.stdout, /^make|^replace|^fix/m);
  assert.is(await tree(root), before);
});

test("a person's own files stay, units are brought up to date, modes are fixed", async () => {
  const root = tempDir("root-");
  await setup(root, ["server"], { expect: 0 });
  await writeFile(join(root, "etc/boatyard/hooks.yml"), "repos: {} # mine\n");
  await writeFile(join(root, "etc/systemd/system/hook-server.service"), "old\n");
  await chmod(join(root, "etc/server-update/secret"), 0o644);
  // as a setup that was killed may leave it, and one that made none below a root
  await writeFile(join(root, "etc/server-update/master.key"), "");
  await rm(join(root, "etc/server-update/master.key.pub"));
  const { stdout } = await setup(root, ["server"], { expect: 0 });
  assert.match(stdout, /replace +file \/etc\/systemd\/system\/hook-server.service/);
  assert.match(stdout, /fix +secret \/etc\/server-update\/secret/);
  await readPrivateKey(join(root, "etc/server-update/master.key"));
  assert.is(await readFile(join(root, "etc/boatyard/hooks.yml"), "utf8"), "repos: {} # mine\n");
  assert.is(await mode(join(root, "etc/server-update/secret")), "600");
});

test("--dry-run shows the plan and changes nothing; without --yes nobody is taken by surprise", async () => {
  const root = tempDir("root-");
  const plan = await runScript("setup", ["server", "--dry-run", "--root", root], {
    expect: 0,
  });
  assert.match(plan.stdout, /make +file \/etc\/boatyard\/hooks.yml/);
  const asked = await runScript("setup", ["server", "--root", root], { expect: 2 });
  assert.match(asked.stderr, "there is no terminal to ask on; say --yes");
  assert.is(await tree(root), await tree(tempDir("root-")));
});

test("a repo gets an account, a secret shown once, and an entry that hook-server reads", async () => {
  const root = tempDir("root-");
  await setup(root, ["server"], { expect: 0 });
  const args = [
    "repo",
    "ada/My.Notes",
    "--address",
    "https://hooks.example.com/",
    "--refs",
    "main,release/*",
    "--then",
    "server-update notes",
  ];
  const { stdout } = await setup(root, args, { expect: 0 });
  assert.match(stdout, "https://github.com/ada/My.Notes/settings/hooks/new");
  assert.match(stdout, /Payload URL +https:\/\/hooks\.example\.com\/hook\n/);
  const secret = (await readFile(join(root, "etc/boatyard/my-notes.secret"), "utf8")).trim();
  assert.match(secret, /^[0-9a-f]{64}$/);
  assert.match(stdout, secret);
  // its key and its checkout are made there as that user, by the same command
  assert.match(stdout, /^On the live system[^]*^ {2}setup repo ada\/My\.Notes$/m);
  assert.is(await mode(join(root, "home/my-notes")), "700");
  assert.match(
    await readFile(join(root, "etc/passwd"), "utf8"),
    /^my-notes:.*:Boatyard ada\/My\.Notes:\/home\/my-notes:\/bin\/bash$/m,
  );
  assert.is(
    await readFile(join(root, "etc/sysusers.d/boatyard-my-notes.conf"), "utf8"),
    'u my-notes - "Boatyard ada/My.Notes" /home/my-notes /bin/bash\n',
  );
  const again = await setup(root, args, { expect: 0 });
  assert.match(again.stderr, "nothing was missing");
  assert.not.match(again.stdout, secret);
  assert.match(again.stdout, "as before, in /etc/boatyard/my-notes.secret");
  assert.match((await setup(root, [...args, "--show-secret"], { expect: 0 })).stdout, `Secret    ${secret}`);
  const entry = await readFile(join(root, "etc/boatyard/hooks.d/ada+My.Notes.yml"), "utf8");
  assert.match(entry, '    on_success: ["server-update notes"]\n');
  assert.match(await readFile(join(root, "etc/boatyard/hooks.yml"), "utf8"), /^repos: \{\}$/m);
});

test("a repo runs by the clock, too, until it is removed", async () => {
  const root = tempDir("root-");
  await setup(root, ["server"], { expect: 0 });
  const { stdout } = await setup(root, ["repo", "ada/site", "--schedule", "Mon 03:00"], { expect: 0 });
  assert.match(stdout, "systemctl enable --now hook-run-ada:site.timer");
  const unit = (end: string) => readFile(join(root, `etc/systemd/system/hook-run-ada:site.${end}`), "utf8");
  assert.match(await unit("service"), "ExecStart=/usr/local/lib/boatyard/hook-server.mjs run ada/site --quiet\n");
  assert.match(await unit("timer"), "OnCalendar=Mon 03:00\n");
  await setup(root, ["repo", "ada/site", "--schedule", "daily"], { expect: 0 });
  assert.match(await unit("timer"), "OnCalendar=daily\n");
  await setup(root, ["remove", "repo", "ada/site"], { expect: 0 });
  assert.not.match(await tree(root), "hook-run");
});

test("names that could harm are refused, and nothing is made", async () => {
  const root = await rootWithAda();
  await setup(root, ["server"], { expect: 0 });
  await setup(root, ["repo", "jostylr/site"], { expect: 0 });
  const before = await tree(root);
  for (const [name, code, words] of [
    ["ada/root", 4, "may not be root's"],
    ["ada/site", 4, "is there for jostylr/site"],
    ["a/$(id)", 2, "not a repository name"],
  ] as const) {
    const { stderr } = await setup(root, ["repo", name], { expect: code });
    assert.match(stderr, words);
  }
  assert.is(await tree(root), before);
});

test("a repo named with capitals, dots, digits or 60 letters gets an account that useradd takes", async () => {
  const root = tempDir("root-");
  await setup(root, ["server"], { expect: 0 });
  for (const [repo, user] of [
    ["Ada/My.Site.JS", "my-site-js"],
    ["ada/2048", "r-2048"],
    ["ada/site-", "site"],
    [`ada/${"x".repeat(60)}`, `${"x".repeat(24)}-[0-9a-f]{6}`],
  ] as const) {
    const { stdout } = await setup(root, ["repo", repo, "--dry-run"], { expect: 0 });
    assert.match(stdout, new RegExp(`user ${user}, home`), repo);
    assert.match(stdout, new RegExp(`/home/${user} 0700`), repo);
  }
  for (const repo of ["ada/.git", "ada/-rf", "ada/x.git", "ada/..", "ada", "a b/c"])
    assert.match(
      (await setup(root, ["repo", repo, "--dry-run"], { expect: 2 })).stderr,
      "write OWNER/NAME as the forge shows it",
    );
});

test("an account that is there is used only when it is named, and never root's or the system's", async () => {
  const root = await rootWithAda();
  await setup(root, ["server"], { expect: 0 });
  const dry = (args: string[], expect: number) => setup(root, [...args, "--dry-run"], { expect });
  assert.match((await dry(["repo", "x/ada"], 4)).stderr, "that setup did not make");
  assert.match((await dry(["repo", "x/ada", "--user", "ada"], 0)).stdout, "setup repo x/ada --user ada");
  assert.match((await dry(["repo", "x/y", "--user", "root"], 4)).stderr, "may not be root's");
  assert.match((await dry(["repo", "x/y", "--user", "daemon"], 4)).stderr, "a system account's name");
  assert.match((await dry(["repo", "x/y", "--user", "Ada"], 4)).stderr, "not a name for a Unix user");
  assert.match((await dry(["slave", "--base", "https://x.example/", "--user", "root"], 4)).stderr, "may not be root's");
  const app = ["--server", "https://x.example/", "--key", "A".repeat(40)];
  assert.match((await dry(["app", "root", ...app], 4)).stderr, "may not be root's");
  assert.match((await dry(["app", "a b", ...app], 2)).stderr, "not an app name");
});

test("an account is not made where a group has its name: who is in docker is as good as root", async () => {
  const root = await rootWithAda();
  await setup(root, ["server"], { expect: 0 });
  await writeFile(join(root, "etc/group"), "root:x:0:\ndocker:x:999:ada\n");
  const before = await tree(root);
  const { code, stderr } = await setup(root, ["repo", "ada/docker"]);
  assert.is(code, 4, stderr);
  assert.match(
    stderr,
    /there is a group docker, but no account of that name; name another account with --user, or remove the group: groupdel docker/,
  );
  assert.is(await tree(root), before);
  await setup(root, ["repo", "ada/docker", "--user", "docker-repo"], { expect: 0 });
});

testUnless(test, needsRoot)("the plan of a live system refuses a group's name as well", async () => {
  const app = ["app", "tty", "--server", "https://x.example/", "--key", "A".repeat(40)];
  const { code, stderr } = await runScript("setup", [...app, "--dry-run"]);
  assert.is(code, 4, stderr);
  assert.match(stderr, /there is a group tty, but no account of that name/);
});

test("a slave has slave-activate at /bin, too, and the master's secret", async () => {
  const root = tempDir("root-");
  const secret = join(tempDir(), "secret");
  await writeFile(secret, "0123456789abcdef0123", { mode: 0o600 });
  const args = ["slave", "--base", "https://github.com/jostylr/", "--secret-file", secret];
  await setup(root, args, { expect: 0 });
  assert.is(await readlink(join(root, "bin/slave-activate")), "/usr/local/lib/boatyard/slave-activate.mjs");
  assert.is(await readFile(join(root, "etc/boatyard/slave.secret"), "utf8"), "0123456789abcdef0123\n");
  assert.match(
    await readFile(join(root, "etc/boatyard/slave.yml"), "utf8"),
    /^base: "https:\/\/github.com\/jostylr\/"/m,
  );
  assert.match((await setup(root, args, { expect: 0 })).stderr, "nothing was missing");
});

test("a secret and a key may come from a program: --secret-file <(pass show …) is read once", async () => {
  const root = tempDir("root-");
  const piped = (flag: string, text: string, args: string[]) =>
    runCommand(
      [
        ...["bash", "-c", `text=$1; shift; exec "$@" ${flag} <(printf %s "$text")`, "bash", text],
        ...[...scriptArgv("setup"), ...args, "--yes", "--root", root],
      ],
      { expect: 0 },
    );
  const secret = "0123456789abcdef0123";
  const base = ["--base", "https://git.example.com/me/"];
  const first = await piped("--secret-file", secret, ["slave", ...base]);
  assert.match(first.stderr, "steps done");
  assert.is(await readFile(join(root, "etc/boatyard/slave.secret"), "utf8"), `${secret}\n`);
  const second = await piped("--secret-file", secret, ["slave", ...base]);
  assert.match(second.stderr, "nothing was missing");
  const cert = join(tempDir(), "bus.pem");
  await writeFile(cert, "-----BEGIN CERTIFICATE-----\n");
  await piped("--cert-key", "key", ["bus", "--address", "bus.example.com", "--cert", cert]);
  assert.is(await readFile(join(root, "etc/boatyard/bus.key"), "utf8"), "key\n");
});

test("users of a bus have a file each; the list that nats-server reads is made of them", async () => {
  const root = tempDir("root-");
  await setup(root, ["bus", "--address", "bus.example.com"], { expect: 0 });
  const list = join(root, "etc/boatyard/nats-users.conf");
  const made = await readFile(list, "utf8");
  const key = keyOfSeed(newSeed());
  const nkey = key ? nkeyOf(key) : "";
  const add = ["bus", "add", "web-1", "--nkey", nkey];
  await setup(root, add, { expect: 0 });
  const text = await readFile(list, "utf8");
  assert.match(text, `\n  { nkey: ${nkey}, `);
  await writeFile(list, made);
  assert.match((await setup(root, add, { expect: 0 })).stdout, /^replace +file \/etc\/boatyard\/nats-users\.conf/m);
  assert.is(await readFile(list, "utf8"), text);
  assert.match((await setup(root, add, { expect: 0 })).stderr, "nothing was missing");
  await setup(root, ["bus", "remove", "web-1"], { expect: 0 });
  assert.is(await readFile(list, "utf8"), made);
});

test("an app has its folder and its unit; the first install is left to the live system", async () => {
  const root = tempDir("root-");
  const { stdout } = await setup(root, ["app", "My-App", "--server", "https://x.example/up", "--key", "A".repeat(40)], {
    expect: 0,
  });
  assert.match(
    stdout,
    "runuser -u my-app -- env -C /srv/my-app /usr/local/lib/boatyard/launchfit.mjs https://x.example/up --key AAAA",
  );
  assert.match(stdout, "systemctl enable --now launchfit@my-app.service");
  assert.ok((await stat(join(root, "srv/my-app"))).isDirectory());
});

test("a link that leads out of the root is refused", async () => {
  const root = tempDir("root-");
  const outside = tempDir("outside-");
  await symlink(outside, join(root, "etc"));
  const { stderr } = await setup(root, ["server"], { expect: 4 });
  assert.match(stderr, /leads out of/);
  assert.is(await tree(outside), await tree(tempDir()));
});

test("--branch says which branch is built, and the entry is the plan's last step", async () => {
  const root = tempDir("root-");
  await setup(root, ["server"], { expect: 0 });
  const args = ["repo", "ada/site", "--branch", "deploy"];
  const { stdout } = await setup(root, args, { expect: 0 });
  assert.match(stdout, /^ {2}setup repo ada\/site --branch deploy$/m);
  assert.match(await readFile(join(root, "etc/boatyard/hooks.d/ada+site.yml"), "utf8"), '    refs: ["deploy"]\n');
  const local = await setup(root, ["repo", "ada/here", "--url", "/srv/git/here.git"], { expect: 0 });
  assert.match(local.stdout, /^ {2}setup repo ada\/here --url \/srv\/git\/here\.git$/m);
});

test("what is in the way is said before anything changes; a link of ours makes room", async () => {
  for (const path of ["etc/server-update/secret", "etc/server-update/slavelist.txt"]) {
    const odd = tempDir("root-");
    await mkdir(join(odd, path), { recursive: true });
    const as = await tree(odd);
    const { stderr } = await setup(odd, ["server"], { expect: 4 });
    assert.match(stderr, `${join(odd, path)} is there and is a folder; move it away`);
    assert.is(await tree(odd), as);
  }
  const root = tempDir("root-");
  await mkdir(join(root, "usr/local/bin"), { recursive: true });
  const build = join(root, "usr/local/bin/build");
  for (const put of [() => writeFile(build, "#!/bin/sh\n"), () => symlink("/opt/somebody/logs", build)]) {
    await put();
    const before = await tree(root);
    const { stderr } = await setup(root, ["server"], { expect: 4 });
    assert.match(stderr, /bin\/build is there and is not a link to build\.mjs; move it away/);
    assert.is(await tree(root), before);
    await rm(build);
  }
  await symlink("/opt/boatyard/build.mjs", build);
  await setup(root, ["server"], { expect: 0 });
  assert.is(await readlink(build), "/usr/local/lib/boatyard/build.mjs");
});

test("a strict umask does not close the folders on the way", async () => {
  const root = tempDir("root-");
  const argv = [...scriptArgv("setup"), "server", "--yes", "--root", root];
  await runCommand(["sh", "-c", 'umask 077; exec "$@"', "sh", ...argv], { expect: 0 });
  await setup(root, ["repo", "ada/site"], { expect: 0 });
  for (const path of ["etc", "usr/local", "var/lib", "home", "etc/systemd/system"])
    assert.is(await mode(join(root, path)), "755", path);
});

test("what setup has made goes again; data is kept and named, and goes with --purge", async () => {
  const root = tempDir("root-");
  const remove = (args: string[], options: RunOptions = { expect: 0 }) =>
    runScript("setup", ["remove", ...args, "--yes", "--root", root], options);
  await setup(root, ["server"], { expect: 0 });
  const empty = await tree(root);
  await setup(root, ["repo", "ada/site"], { expect: 0 });
  const plan = await remove(["repo", "ada/site", "--dry-run"]);
  assert.match(plan.stdout, /^remove +file \/etc\/boatyard\/hooks\.d\/ada\+site\.yml/m);
  const { stdout } = await remove(["repo", "ada/site"]);
  assert.match(stdout, "Kept; setup remove repo ada/site --purge removes it");
  assert.match(stdout, "folder /home/site with all that is in it");
  assert.match(stdout, "file /etc/boatyard/site.secret");
  assert.is(await readdir(join(root, "etc/boatyard/hooks.d")).then((names) => names.join()), "");
  assert.match((await remove(["repo", "ada/site"])).stderr, "nothing was left to remove");
  await remove(["repo", "ada/site", "--purge"]);
  const gone = await tree(root);
  assert.not.match(gone, /home\/site|site\.secret|boatyard-site/);
  for (const name of ["passwd", "group"]) assert.not.match(await readFile(join(root, "etc", name), "utf8"), /^site:/m);
  await remove(["repo", "ada/site"], { expect: 2 });
  assert.match((await remove(["repo", "ada/none"], { expect: 2 })).stderr, "there is no repo ada/none here");
  const databases = /^\.\/(?:home|etc\/(?:sysusers\.d|\.?(?:passwd|group|g?shadow|pwd\.lock)-?)) .*\n|^root:.*\n/gm;
  assert.is(gone.replace(databases, ""), empty.replace(databases, ""));

  // an account of another name, too
  await setup(root, ["repo", "ada/site", "--user", "web"], { expect: 0 });
  assert.match((await remove(["repo", "ada/site"])).stdout, "folder /home/web with all");
  await remove(["repo", "ada/site", "--purge"]);
  assert.not.match(await tree(root), /home\/web|web\.secret|boatyard-web/);

  // an account that builds another repo, too, stays
  await setup(root, ["repo", "ada/site"], { expect: 0 });
  const hooks = join(root, "etc/boatyard/hooks.yml");
  const text = await readFile(hooks, "utf8");
  await writeFile(hooks, text.replace("repos: {}", "repos:\n  ada/more: { user: site, dir: /home/site/more }"));
  const shared = await remove(["repo", "ada/site", "--purge"], { expect: 2 });
  assert.match(shared.stderr, "the account site builds ada/more too, and stays");
  const own = await remove(["repo", "ada/more"], { expect: 2 });
  assert.match(own.stderr, "stands in /etc/boatyard/hooks.yml, which is a person's; remove it there");
  // what cannot be read is not guessed at
  await writeFile(hooks, "repos: [\n");
  assert.match((await remove(["repo", "ada/site"], { expect: 2 })).stderr, "hooks.yml:");
  await writeFile(hooks, text);
  await remove(["repo", "ada/site", "--purge"]);

  // the slave leaves the server its scripts
  await setup(root, ["slave", "--base", "https://git.example.com/me/"], { expect: 0 });
  const slave = await remove(["slave"]);
  assert.match(slave.stdout, "the commands: the server");
  assert.match(slave.stdout, "file /etc/boatyard/slave.yml");
  await lstat(join(root, "usr/local/bin/build"));
  await remove(["slave", "--purge"]);

  await remove(["server"]);
  const rest = await tree(root);
  assert.match(rest, "./etc/boatyard/hooks.yml 644");
  assert.not.match(rest, /^\.\/(?:usr\/local\/(?:bin|lib)|etc\/systemd\/system)\/./m);
  await remove(["server", "--purge"]);
  assert.not.match(await tree(root), /boatyard|server-update/);
});

test("setup check finds what was spoilt, and says how to fix it", async () => {
  const root = tempDir("root-");
  await setup(root, ["server"], { expect: 0 });
  await setup(root, ["repo", "ada/site"], { expect: 0 });
  const check = (expect: number) => runScript("setup", ["check", "--root", root], { expect });
  assert.not.match((await check(0)).stdout, /^fix/m);
  await chmod(join(root, "etc/boatyard/site.secret"), 0o644);
  await chmod(join(root, "etc/boatyard"), 0o777);
  await rm(join(root, "etc/boatyard/hooks.yml"));
  await writeFile(join(root, "etc/passwd"), "site:x:1001:1001:Boatyard ada/site:/home/site:/bin/sh\n");
  await chmod(join(root, "home/site"), 0o755);
  const { stdout } = await check(1);
  const wrong = "has another owner or mode";
  for (const line of [
    `folder /etc/boatyard 0755: ${wrong}; run: setup server`,
    "file /etc/boatyard/hooks.yml 0644: is missing; run: setup server",
    `folder /home/site 0700 of site: ${wrong}; run: setup repo ada/site`,
    `secret /etc/boatyard/site.secret 0600: ${wrong}; run: setup repo ada/site`,
  ])
    assert.match(stdout, `fix   ${line}\n`);
  // the commands that it names put it right
  await setup(root, ["server"], { expect: 0 });
  await setup(root, ["repo", "ada/site"], { expect: 0 });
  assert.not.match((await check(0)).stdout, /^fix/m);
});

const strace = await runCommand(["strace", "-V"]).then(
  () => undefined,
  () => "needs strace",
);
testUnless(test, strace)("killed at any step and run again, it completes", async () => {
  const whole = tempDir("root-");
  await setup(whole, ["server"], { expect: 0 });
  const random = /\b[0-9a-f]{64}\b|(?<=BEGIN PRIVATE KEY-----\n)[^-]+|(?<=ed25519:)[\w-]{43}/g;
  const shape = async (root: string) => (await tree(root)).replace(random, "RANDOM");
  for (const when of [1, 2, 9, 20]) {
    const root = tempDir("root-");
    const inject = `inject=rename,renameat,renameat2:signal=KILL:when=${when}`;
    const argv = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2", "-e", inject];
    const own = [...scriptArgv("setup"), "server", "--yes", "--root", root];
    const cut = await runCommand([...argv, ...own], { env: { UV_THREADPOOL_SIZE: "1" } });
    // strace counts each thread by itself, and Deno has several: a late one may never come
    if (when === 1) assert.is.not(cut.code, 0, "killed at the first rename");
    await setup(root, ["server"], { expect: 0 });
    assert.is(await shape(root), await shape(whole), `after a kill at rename ${when}`);
  }
});

testUnless(test, needsRoot ? undefined : "needs an ordinary user")(
  "an ordinary user is told what root is for",
  async () => {
    const { stderr } = await runScript("setup", ["server", "--yes"], { expect: 2 });
    assert.match(stderr, "only root can do this");
  },
);

test("a wrong word is said before anything is touched", async () => {
  const root = tempDir("root-");
  await setup(root, ["server"], { expect: 0 });
  const before = await tree(root);
  const table: [string[], string][] = [
    [["repo", "a/b", "--refs", "main,a..b"], '--refs: "a..b" is not a branch or tag'],
    [["repo", "a/b", "--branch=-x"], '--branch: "-x" is not a branch name'],
    [["repo", "a/b", "--address", "hooks.example.com"], "write https://hooks.example.com"],
    [["repo", "a/b", "--url", "https://u:p@x.example/y.git"], "and the deploy key"],
    [["repo", "a/b", "--schedule", "Mun 03:00"], "write a time as in systemd.time(7)"],
    [["slave", "--base", "https://x.example/", "--secret-file", join(root, "none")], "secret file"],
    [["slave"], "say where repos come from: --base URL"],
    [["slave", "--base", "foo"], "is not a URL to clone from"],
    [["bus", "--listen", "0.0.0.0:70000"], '"0.0.0.0:70000" is not ADDRESS:PORT'],
    [["app", "x", "--server", "ftp://x", "--key", "A".repeat(40)], "is not an https, http or file URL"],
    [["app", "x", "--server", "https://x", "--key", "A1B2"], "a whole fingerprint is 40 hex digits"],
  ];
  for (const [args, words] of table)
    assert.match((await setup(root, args, { expect: 2 })).stderr, words, args.join(" "));
  assert.is(await tree(root), before);
  const { stderr } = await setup(join(root, "none"), ["server"], { expect: 2 });
  assert.match(stderr, "none is not a folder");
  const check = await runScript("setup", ["check", "--forge", "foo"], { expect: 2 });
  assert.match(check.stderr, '--forge: "foo" is not a URL');
});

test("words that are no command are answered with the commands", async () => {
  assert.match(
    (await runScript("setup", [], { expect: 2 })).stderr,
    "setup server, repo OWNER/NAME, slave, app NAME, bus, check, or remove",
  );
  assert.match((await runScript("setup", ["sever"], { expect: 2 })).stderr, 'did you mean "server"');
});

test.run();

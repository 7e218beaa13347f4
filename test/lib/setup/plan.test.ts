import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Item } from "../../../lib/items/items.ts";
import { type Facts, parsePasswd } from "../../../lib/setup/machine.ts";
import { readHooks } from "../../../lib/setup/hooks-file.ts";
import { cloneHint, guessForge, knownHost, readRemote, webhookNote } from "../../../lib/setup/forge.ts";
import { planRepo, type RepoOptions } from "../../../lib/setup/plan-repo.ts";
import { planApp, planServer } from "../../../lib/setup/plan-server.ts";
import { planSlave } from "../../../lib/setup/plan-slave.ts";

const facts: Facts = {
  root: "/",
  accounts: parsePasswd("root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n"),
  scripts: { folder: "/usr/local/lib/boatyard", isPackage: false, units: [] },
  hooks: "repos: {}\n",
  repos: [],
  hookServer: false,
  slave: undefined,
  apps: [],
  nginx: false,
  hostname: "host",
};
const options: RepoOptions = {
  repo: "jostylr/site",
  url: undefined,
  user: undefined,
  branch: undefined,
  refs: [],
  afterwards: [],
};
const repo = (more: Partial<RepoOptions>, known: Partial<Facts> = {}) =>
  planRepo({ ...facts, ...known }, { ...options, ...more });
const lines = (plan: { items: readonly Item[] }) => plan.items.map(({ what }) => what);

test("a repo's plan, in its order", () => {
  assert.equal(lines(repo({})), [
    "user site, home /home/site",
    "folder /home/site 0700 of site",
    "ssh key /home/site/.ssh/id_ed25519 of site",
    "the published ssh key of github.com in /home/site/.ssh/known_hosts",
    "secret /etc/boatyard/site.secret 0600",
    "clone of https://github.com/jostylr/site.git in /home/site/site",
    "systemd: enable logs-rotate@site.timer",
    // hook-server reads it at once: what a push then meets is whole
    "file /etc/boatyard/hooks.d/jostylr+site.yml 0644",
  ]);
});

test("after a restore hook-server starts once the last of its accounts is there", async () => {
  const hooks = "repos:\n  ada/one:\n    user: one\n  ada/two: { user: two, dir: /x }\n";
  const repos = await readHooks(hooks, "/etc/boatyard/hooks.yml");
  const server = planServer({ ...facts, hooks, repos });
  assert.not.ok(lines(server).some((line) => /enable hook-server/.test(line)));
  assert.match(server.notes[0]?.title ?? "", "hook-server is not started yet");
  assert.equal(server.notes[0]?.lines, ["setup repo ada/one", "setup repo ada/two"]);
  const begins = (accounts: Facts["accounts"]) =>
    lines(repo({ repo: "ada/one" }, { hooks, repos, hookServer: true, accounts })).some((line) =>
      /enable hook-server/.test(line),
    );
  assert.not.ok(begins(new Map()));
  assert.ok(begins(parsePasswd("two:x:1001:1001:Boatyard ada/two:/home/two:/bin/bash\n")));
});

test("every secret that a repo names is known, one or a list, here or elsewhere", async () => {
  const hooks = `repos:
  a/one:
    secret_file: /etc/boatyard/one.secret    # 600
  a/two:
    secret_file: [new.secret, "two.secret"]
  # secret_file: never
  a/three: { dir: /x, secret_file: /srv/three }
`;
  const repos = await readHooks(hooks, "/etc/boatyard/hooks.yml");
  assert.equal(
    repos.flatMap(({ secretFiles }) => secretFiles),
    ["/etc/boatyard/one.secret", "/etc/boatyard/new.secret", "/etc/boatyard/two.secret", "/srv/three"],
  );
});

test("a slave's own home is open to a web server, a person's keeps its mode", () => {
  const plan = (user?: string) => lines(planSlave(facts, { base: undefined, user, secretFile: undefined }));
  assert.ok(plan().includes("folder /srv/slave 0755 of slave"));
  assert.not.ok(plan("ada").some((line) => line.startsWith("folder /home/ada")));
});

test("the master has a key, and a slave that trusts it needs no secret", () => {
  const plans = (plan: { items: readonly Item[] }) => lines(plan).join("\n");
  const server = plans(planServer(facts));
  assert.match(server, "key /etc/server-update/master.key 0600");
  assert.match(server, "public key /etc/server-update/master.key.pub 0644");
  const none = { base: undefined, user: undefined, secretFile: undefined };
  const masterKey = `ed25519:${"A".repeat(43)}`;
  assert.match(plans(planSlave(facts, none)), "secret /etc/boatyard/slave.secret");
  assert.not.match(plans(planSlave(facts, { ...none, masterKey })), "secret");
  const both = planSlave(facts, { ...none, masterKey, secretFile: "x" });
  assert.match(plans(both), "secret /etc/boatyard/slave.secret");
});

test("slave.yml stays a person's: what a later call adds to it, and what it cannot", () => {
  const masterKey = `ed25519:${"A".repeat(43)}`;
  const none = { base: undefined, user: undefined, secretFile: undefined };
  const bus = { url: "tls://bus.example.com:4222", ca: undefined };
  const bySecret = "secret_file: slave.secret\nbase: https://github.com/me/\n";
  const byHttp = { ...facts, slave: "slave", slaveSocket: true, slaveSettings: bySecret };
  const toBus = lines(planSlave(byHttp, { ...none, bus, masterKey }));
  assert.ok(toBus.includes("file /etc/boatyard/slave.d/master.yml 0644"));
  assert.ok(toBus.includes("file /etc/boatyard/slave.d/bus.yml 0644"));
  assert.ok(toBus.includes("systemd: enable slave-server.socket slave-server.service"));
  assert.throws(() => planSlave(byHttp, { ...none, bus }), /--bus needs --master-key/);
  const other = { ...byHttp, slaveSettings: `master_key: ed25519:${"B".repeat(43)}\n` };
  assert.throws(
    () => planSlave(other, { ...none, masterKey }),
    /slave\.yml has another master_key; .*\[ed25519:B+, ed25519:A+\]/,
  );
  const listed = `master_key:\n  - ed25519:${"B".repeat(43)} # the old one\n`;
  assert.throws(
    () => planSlave({ ...other, slaveSettings: listed }, { ...none, masterKey }),
    /slave\.yml has another master_key; .*\[ed25519:B+, ed25519:A+\]/,
  );
  const off = `# master_key: ${masterKey}\nmaster_key: ed25519:${"B".repeat(43)} # not ${masterKey}\n`;
  assert.throws(() => planSlave({ ...other, slaveSettings: off }, { ...none, masterKey }));
  assert.match(
    planSlave(other, { ...none, base: "https://git.example.com/me/" }).warnings?.join() ?? "",
    "stays as it is: base is not https://git.example.com/me/ there",
  );
  // one that connects out opens no port, and makes no secret, when setup is run again
  const onBus = `master_key: ${masterKey}\nbus: { url: "tls://x:1", seed_file: bus.seed }\n`;
  const again = { ...facts, slave: "slave", slaveSocket: false, slaveSettings: onBus };
  const plan = lines(planSlave(again, none)).join("\n");
  assert.not.match(plan, /socket|slave\.secret/);
  // also where slave.d says so
  const apart = { ...again, slaveSettings: "base: x\n", slaveMore: onBus };
  assert.not.match(lines(planSlave(apart, none)).join("\n"), /socket|slave\.secret/);
});

test("every step says why", () => {
  const app = { app: "x", server: "https://x.example", key: "A".repeat(40), user: undefined };
  const slave = { base: undefined, user: undefined, secretFile: undefined };
  for (const { items } of [planServer(facts), repo({}), planSlave(facts, slave), planApp(facts, app)])
    for (const item of items) assert.ok(item.why.length > 5, item.what);
});

test("names and addresses that could harm are refused before there is a plan", () => {
  const app = { app: "x", server: "https://x.example", key: "A".repeat(40), user: undefined };
  const slave = { base: undefined, user: undefined, secretFile: undefined };
  for (const [wrong, words] of [
    [() => repo({ repo: "ada/root" }), /may not be root's/],
    [() => repo({ repo: "ada/ada" }), /setup did not make/],
    [() => repo({ user: "../x" }), /not a name for a Unix user/],
    [() => repo({ repo: "../../etc" }), /not a repository name/],
    [() => repo({ repo: "-x/y" }), /not a repository name/],
    [() => repo({ repo: "a/b\nc" }), /not a repository name/],
    [() => repo({ url: "ext::sh -c id" }), /not a URL to clone from/],
    [() => repo({ url: "-oProxyCommand=id" }), /not a URL to clone from/],
    [() => repo({ url: "ssh://x" }), /names a host only; .*ssh:\/\/x\/OWNER\/NAME\.git/],
    [() => repo({ address: "https://x/a b" }), /is not a URL/],
    [() => repo({ url: "https://me:pw@example.com/a/b" }), /a password in a URL/],
    [() => repo({}, { hooks: undefined }), /run setup server first/],
    [() => planApp(facts, { ...app, app: "../x" }), /not an app name/],
    [() => planApp(facts, { ...app, server: "ftp://x" }), /not an https, http or file URL/],
    [() => planApp(facts, { ...app, server: "https://me:pw@x" }), /a password in a URL/],
    [() => planApp(facts, { ...app, key: "ABCD" }), /a whole fingerprint/],
    [() => planSlave(facts, { ...slave, base: "file" }), /not a URL/],
    [() => planSlave(facts, { ...slave, user: "root" }), /may not be root's/],
    [
      () => planSlave({ ...facts, slave: "slave" }, { ...slave, user: "ada" }),
      /slave-server runs as slave, .*; leave --user out, or first: setup remove slave/,
    ],
    [() => planSlave(facts, { ...slave, masterKey: "ed25519:x" }), /not a public key/],
  ] as const)
    assert.throws(wrong, words);
});

test("where a repo is cloned from tells its forge", () => {
  for (const [url, host, port, forge] of [
    ["https://github.com/a/b.git", "github.com", undefined, "github"],
    ["git@gitlab.com:a/b.git", "gitlab.com", 22, "gitlab"],
    ["ssh://git@git.example.com:2222/a/b.git", "git.example.com", 2222, "gitea"],
    ["https://bitbucket.org/a/b", "bitbucket.org", undefined, "bitbucket"],
    ["git://git.example.com/a/b.git", "git.example.com", undefined, "gitea"],
    ["file:///srv/git/a/b.git", undefined, undefined, "github"],
  ] as const) {
    const remote = readRemote(url);
    assert.equal([remote.host, remote.sshPort], [host, port]);
    assert.is(guessForge(remote.host), forge);
  }
  assert.match(knownHost("codeberg.org") ?? "", /^codeberg\.org ssh-ed25519 AAAAC3/);
  assert.is(knownHost("git.example.com"), undefined);
});

test("what to paste is in the forge's own words, and an old secret is not shown", () => {
  const how = { address: "https://h.example/", secret: "s3cret", secretFile: "/etc/x" };
  assert.equal(webhookNote("gitlab", "https://gitlab.com", "a/b", how), {
    title: "For the webhook: https://gitlab.com/a/b/-/hooks",
    lines: [
      "URL    https://h.example/hook",
      "Secret token    s3cret",
      "Events    Push events, and Releases events if you release",
    ],
  });
  const old = webhookNote("github", "https://github.com", "a/b", { ...how, secret: undefined });
  assert.ok(old.lines.includes("Secret    (as before, in /etc/x; setup repo --show-secret shows it)"));
});

test("below another root, and without systemd, each line for a person does what is left", () => {
  const later = repo({ url: "ssh://git@git.example.com:2222/a/b.git", branch: "deploy" }).items.flatMap(
    ({ live }) => live ?? [],
  );
  assert.equal(
    [...new Set(later)],
    [
      "setup repo jostylr/site --url ssh://git@git.example.com:2222/a/b.git --branch deploy",
      "systemctl enable --now logs-rotate@site.timer",
    ],
  );
});

test("a branch that is checked out is the one that is built; flags that contradict it are refused", () => {
  assert.throws(
    () => repo({ branch: "deploy", refs: ["main", "release/*"] }),
    /--refs main,release\/\* leaves out --branch deploy/,
  );
  assert.ok(repo({ branch: "release/2", refs: ["main", "release/*"] }));
  const hooks = "repos:\n  jostylr/site:\n    user: site\n";
  const known = {
    hooks,
    repos: [{ repo: "jostylr/site", file: "/etc/boatyard/hooks.yml", user: "site", secretFiles: [] }],
  };
  assert.match(
    repo({ branch: "deploy" }, known).warnings?.join() ?? "",
    "does not say that deploy is built; add to it: refs: [deploy]",
  );
  assert.match(repo({ refs: ["main"] }, known).warnings?.join() ?? "", "--refs count for a new entry only");
});

test("a checkout is one repo's, and an entry says who builds it", () => {
  const hooks = "repos:\n  ada/one:\n    user: ada\n    dir: /home/ada/ada\n";
  const one = { repo: "ada/one", file: "/etc/boatyard/hooks.yml", user: "ada", dir: "/home/ada/ada", secretFiles: [] };
  const known = { hooks, repos: [one] };
  assert.throws(
    () => repo({ user: "ada" }, known),
    /\/home\/ada\/ada is the checkout of ada\/one; name another account for jostylr\/site/,
  );
  assert.throws(() => repo({ repo: "ada/one", user: "bob" }, known), /ada\/one is built by ada/);
  assert.ok(lines(repo({ repo: "ada/one" }, known)).includes("folder /home/ada 0700 of ada"));
  assert.throws(() => repo({ repo: "ada/slave" }), /slave is a system account's name/);
});

test("a checkout is where hooks.yml says; one that a person has put elsewhere is not setup's to remove", () => {
  const entry = {
    repo: "jostylr/site",
    file: "/etc/boatyard/hooks.yml",
    user: "site",
    dir: "/srv/www/site",
    secretFiles: [],
  };
  const hooks = "repos:\n  jostylr/site:\n    user: site\n    dir: /srv/www/site\n";
  const cloneOf = (plan: { items: Item[] }) => plan.items.find(({ what }) => what.startsWith("clone"));
  const elsewhere = cloneOf(repo({}, { hooks, repos: [entry] }));
  assert.is(elsewhere?.path, "/srv/www/site");
  assert.is(elsewhere?.back, undefined);
  assert.ok(cloneOf(repo({}))?.back);
});

test("why a clone failed has its own way out", () => {
  const hint = (said: string, url = "https://github.com/a/b.git") =>
    cloneHint(said, { url, owner: "site", branch: "deploy" });
  const ssh = "git@github.com:a/b.git";
  for (const [said, url, words] of [
    [
      "fatal: unable to access 'https://x/': Could not resolve host: github.com",
      undefined,
      /DNS \(getent hosts github\.com\)/,
    ],
    ["ssh: Could not resolve hostname github.com: Temporary failure in name resolution", ssh, /DNS/],
    ["git@github.com: Permission denied (publickey).", ssh, /enter the deploy key/],
    [
      "fatal: could not read Username for 'https://github.com': terminal prompts disabled",
      undefined,
      /a private one is cloned by ssh: --url git@github\.com:/,
    ],
    [
      "fatal: detected dubious ownership in repository at '/srv/git/b.git'\nTo add an exception",
      "/srv/git/b.git",
      /runuser -u site -- git config --global --add safe\.directory \/srv\/git\/b\.git/,
    ],
    ["fatal: Remote branch deploy not found in upstream origin", undefined, /no branch deploy; correct --branch/],
    ["Host key verification failed.", ssh, /known_hosts of site/],
    ["fatal: repository 'https://github.com/a/b.git/' not found", undefined, /^correct --url$/],
  ] as const)
    assert.match(hint(said, url), words, said);
});

test.run();

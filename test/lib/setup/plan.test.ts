import { test } from "uvu";
import * as assert from "uvu/assert";
import { parsePasswd } from "../../../lib/setup/accounts.ts";
import { secretFiles } from "../../../lib/setup/check.ts";
import { guessForge, knownHost, readRemote, webhookNote } from "../../../lib/setup/forge.ts";
import { planApp } from "../../../lib/setup/plan-app.ts";
import { planRepo, type RepoOptions } from "../../../lib/setup/plan-repo.ts";
import { planServer } from "../../../lib/setup/plan-server.ts";
import { planSlave } from "../../../lib/setup/plan-slave.ts";
import { byHand, describe, forRoot } from "../../../lib/setup/setup.ts";
import type { Facts } from "../../../lib/setup/step.ts";

const names = [
  "build",
  "hook-server",
  "launchfit",
  "logs",
  "release",
  "server-update",
  "slave-activate",
  "slave-server",
];
const facts: Facts = {
  root: "/",
  accounts: parsePasswd("root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n"),
  scripts: new Map(names.map((name) => [name, `/from/${name}.mjs`])),
  hooks: "repos: {}\n",
  hookServer: false,
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
  timer: false,
};
const repo = (more: Partial<RepoOptions>, known: Partial<Facts> = {}) =>
  planRepo({ ...facts, ...known }, { ...options, ...more });
const lines = (plan: { steps: Parameters<typeof describe>[0][] }) => plan.steps.map(describe);

test("a repo's plan, in its order", () => {
  assert.equal(lines(repo({})), [
    "user site, home /home/site",
    "folder /home/site 0700 of site",
    "folder /home/site/.ssh 0700 of site",
    "ssh key /home/site/.ssh/id_ed25519 of site",
    "the published ssh key of github.com in /home/site/.ssh/known_hosts",
    "secret /etc/boatyard/site.secret 0600",
    "an entry for jostylr/site in /etc/boatyard/hooks.yml",
    "clone of https://github.com/jostylr/site.git in /home/site/site",
    "systemd: enable logs-rotate@site.timer",
  ]);
});

test("after a restore hook-server starts once the last of its accounts is there", () => {
  const hooks = "repos:\n  ada/one:\n    user: one\n  ada/two: { user: two, dir: /x }\n";
  const server = planServer({ ...facts, hooks });
  assert.not.ok(lines(server).some((line) => /enable hook-server/.test(line)));
  assert.match(server.notes[0]?.title ?? "", "hook-server is not started yet");
  assert.equal(server.notes[0]?.lines, ["setup repo ada/one", "setup repo ada/two"]);
  const begins = (accounts: Facts["accounts"]) =>
    lines(repo({ repo: "ada/one" }, { hooks, hookServer: true, accounts })).some((line) =>
      /enable hook-server/.test(line),
    );
  assert.not.ok(begins(new Map()));
  assert.ok(begins(parsePasswd("two:x:1001:1001:Boatyard ada/two:/home/two:/bin/bash\n")));
});

test("setup check finds every secret that hooks.yml names, one or a list, here or elsewhere", () => {
  const hooks = `status: { token_file: /etc/boatyard/status.token }
repos:
  a/one:
    secret_file: /etc/boatyard/one.secret    # 600
  a/two:
    secret_file: [new.secret, "two.secret"]
  # secret_file: never
  a/three: { dir: /x, secret_file: /srv/three }
`;
  assert.equal(secretFiles(hooks), [
    "/etc/boatyard/status.token",
    "/etc/boatyard/one.secret",
    "/etc/boatyard/new.secret",
    "/etc/boatyard/two.secret",
    "/srv/three",
  ]);
});

test("a slave's own home is open to a web server, a person's keeps its mode", () => {
  const plan = (user?: string) =>
    lines(planSlave(facts, { base: undefined, user, secretFile: undefined }));
  assert.ok(plan().includes("folder /srv/slave 0755 of slave"));
  assert.not.ok(plan("ada").some((line) => line.startsWith("folder /home/ada")));
});

test("with a timer there is neither secret nor webhook", () => {
  const plan = lines(repo({ timer: true }, { hooks: undefined }));
  assert.ok(plan.includes("systemd: enable build@site.timer"));
  assert.not.ok(plan.some((line) => /secret|hooks\.yml/.test(line)));
});

test("every step says why", () => {
  const app = { app: "x", server: "https://x.example", key: "A".repeat(40), user: undefined };
  const slave = { base: undefined, user: undefined, secretFile: undefined };
  for (const { steps } of [
    planServer(facts),
    repo({}),
    planSlave(facts, slave),
    planApp(facts, app),
  ])
    for (const step of steps) assert.ok(step.why.length > 5, describe(step));
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
    [() => repo({ url: "https://me:pw@example.com/a/b" }), /a password in a URL/],
    [() => repo({}, { hooks: undefined }), /run setup server first/],
    [() => repo({}, { hooks: "repos: {a: b}\n" }), /no line "repos:"/],
    [() => planServer({ ...facts, scripts: new Map() }), /is not beside setup/],
    [() => planApp(facts, { ...app, app: "../x" }), /not an app name/],
    [() => planApp(facts, { ...app, server: "ftp://x" }), /not an https, http or file URL/],
    [() => planApp(facts, { ...app, key: "ABCD" }), /a whole fingerprint/],
    [() => planSlave(facts, { ...slave, base: "file" }), /not a URL/],
    [() => planSlave(facts, { ...slave, user: "root" }), /may not be root's/],
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
  assert.ok(old.lines.includes("Secret    (as before, in /etc/x)"));
});

test("a forge whose key is not known is asked, and its port is kept", () => {
  const plan = repo({ url: "ssh://git@git.example.com:2222/a/b.git" });
  const step = plan.steps.find(({ kind }) => kind === "host-key");
  assert.ok(step);
  assert.equal(step && byHand(step), [
    "ssh-keyscan -t ed25519 -p 2222 git.example.com >> /home/site/.ssh/known_hosts",
  ]);
});

test("under another root accounts are files, owners are told to tmpfiles, the rest is a list", () => {
  const { steps, notes } = forRoot(repo({}));
  assert.ok(steps.every(({ kind }) => ["file", "folder", "secret", "edit"].includes(kind)));
  const text = (path: string) => {
    const step = steps.find((each) => "path" in each && each.path === path);
    return step?.kind === "file" ? step.text : undefined;
  };
  assert.is(
    text("/etc/sysusers.d/boatyard-site.conf"),
    'u site - "Boatyard jostylr/site" /home/site /bin/bash\n',
  );
  assert.is(text("/etc/tmpfiles.d/boatyard-home-site.conf"), "d /home/site 0700 site site -\n");
  assert.equal(notes[0]?.lines, [
    "runuser -u site -- ssh-keygen -t ed25519 -N '' -C 'site@host jostylr/site' -f /home/site/.ssh/id_ed25519",
    "runuser -u site -- git clone -- https://github.com/jostylr/site.git /home/site/site",
    "systemctl enable --now logs-rotate@site.timer",
  ]);
});

test.run();

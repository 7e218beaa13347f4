import { join } from "node:path";
import { UsageError } from "../errors.ts";
import { isRepoName } from "../names.ts";
import { isAppName } from "../version-file.ts";
import { chooseAccount, commentFor, unixName } from "./accounts.ts";
import { hostName, knownHost, readRemote } from "./forge.ts";
import { addRepo, emptyHooks, hasRepo } from "./hooks-file.ts";
import type { Facts, Plan, Step } from "./step.ts";
import { templates } from "./templates.ts";

/** What each kind of machine shall have. Pure: facts and wishes in, steps out. */

export const places = {
  config: "/etc/boatyard",
  hooks: "/etc/boatyard/hooks.yml",
  list: "/etc/server-update/slavelist.txt",
  listSecret: "/etc/server-update/secret",
  slave: "/etc/boatyard/slave.yml",
  slaveSecret: "/etc/boatyard/slave.secret",
  scripts: "/usr/local/lib/boatyard",
  bin: "/usr/local/bin",
  units: "/etc/systemd/system",
  state: "/var/lib/boatyard",
};

const folder = (path: string, mode: number, why: string, owner?: string): Step => ({
  kind: "folder",
  path,
  mode,
  why,
  ...(owner === undefined ? {} : { owner }),
});

/** The script files in one folder, where they find each other, with a link for each on PATH. */
function scriptSteps(facts: Facts, names: readonly string[]): Step[] {
  const steps = [folder(places.scripts, 0o755, "where the scripts stand, beside each other")];
  for (const name of names) {
    const from = facts.scripts.get(name);
    if (from === undefined)
      throw new UsageError(
        `the script ${name} is not beside setup; copy dist/${name}.mjs there, or name its folder with --from`,
      );
    const path = join(places.scripts, `${name}.mjs`);
    steps.push({ kind: "copy", path, from, mode: 0o755, why: `the script ${name}` });
    steps.push({
      kind: "link",
      path: join(places.bin, name),
      to: path,
      why: "on everybody's PATH",
    });
  }
  return steps;
}

function unit(name: keyof typeof templates, why: string): Step {
  return { kind: "file", path: join(places.units, name), text: templates[name], mode: 0o644, why };
}

/** The template's list with its examples as comments: a fresh server tells nobody. */
export function emptyList(template: string): string {
  return template.replace(/^(?=[^#\s])/gm, "# ");
}

/** Units on, and those restarted whose files are newer than their process. */
function started(units: string[], scripts: readonly string[]): Step[] {
  const files = [
    ...units.map((name) => join(places.units, name.replace(/@.*\./, "@."))),
    ...scripts.map((name) => join(places.scripts, `${name}.mjs`)),
  ];
  return [
    { kind: "reload", units, why: "systemd reads the units that changed" },
    { kind: "enable", units, why: "on now, and at every boot" },
    {
      kind: "restart",
      units: units.filter((name) => name.endsWith(".service")),
      files,
      why: "what runs is older than its files",
    },
  ];
}

/** `setup server`: hook-server and all that it starts. */
export function planServer(facts: Facts): Plan {
  const names = [...facts.scripts.keys()].sort();
  for (const needed of ["hook-server", "build", "release", "server-update"])
    if (!names.includes(needed)) names.push(needed);
  const units = ["hook-server.socket", "hook-server.service"];
  const steps: Step[] = [
    ...scriptSteps(facts, names),
    folder(places.config, 0o755, "configuration and secrets"),
    folder(places.state, 0o711, "hook-server's queue, runs and their logs"),
    {
      kind: "file",
      path: places.hooks,
      text: emptyHooks(templates["hooks.yml"]),
      mode: 0o644,
      once: true,
      why: "which repos are built; yours from now on",
    },
    folder("/etc/server-update", 0o755, "the fleet, where document 2 has it"),
    {
      kind: "file",
      path: places.list,
      text: emptyList(templates["slavelist.txt"]),
      mode: 0o644,
      once: true,
      why: "the slaves that server-update tells; yours from now on",
    },
    {
      kind: "secret",
      path: places.listSecret,
      mode: 0o600,
      why: "signs what server-update asks of the slaves",
    },
    unit("hook-server.socket", "holds the address, also while the server restarts"),
    unit("hook-server.service", "runs hook-server, with few powers"),
    unit("build@.service", "builds one repo; for those that no webhook reaches"),
    unit("build@.timer", "… every five minutes"),
  ];
  if (facts.nginx)
    steps.push({
      kind: "file",
      path: "/etc/nginx/snippets/boatyard-hooks.conf",
      text: templates["nginx-hooks.conf"],
      mode: 0o644,
      why: "nginx is here, and hands webhooks over",
    });
  steps.push(...started(units, ["hook-server"]));
  return {
    steps,
    notes: [
      {
        title: "Next",
        lines: [
          ...(facts.nginx
            ? ["in the server block of your site: include snippets/boatyard-hooks.conf;"]
            : [
                "a web server with a certificate before 127.0.0.1:3420: templates/Caddyfile, nginx-hooks.conf",
              ]),
          "setup repo OWNER/NAME",
        ],
      },
    ],
  };
}

export interface RepoWishes {
  repo: string;
  url: string | undefined;
  user: string | undefined;
  branch: string | undefined;
  refs: readonly string[];
  afterwards: readonly string[];
  /** Build by a timer: no webhook, no secret. */
  timer: boolean;
}

/** What `setup repo` knows at the end, for its notes. */
export interface RepoPlan extends Plan {
  user: string;
  secretFile: string;
  keyFile: string;
  remote: ReturnType<typeof readRemote>;
}

/** `setup repo OWNER/NAME`: an account, a key, a secret, an entry in hooks.yml, a checkout. */
export function planRepo(facts: Facts, wishes: RepoWishes): RepoPlan {
  const { repo } = wishes;
  if (!isRepoName(repo))
    throw new UsageError(`"${repo.slice(0, 200)}" is no repository; write OWNER/NAME`);
  const remote = readRemote(wishes.url ?? `https://github.com/${repo}.git`);
  const derived = unixName(repo.split("/").at(-1) ?? "");
  const user = chooseAccount({ what: repo, derived, given: wishes.user }, facts.accounts);
  const home = facts.accounts.get(user)?.home ?? join("/home", user);
  const dir = join(home, user);
  const keyFile = join(home, ".ssh/id_ed25519");
  const secretFile = join(places.config, `${user}.secret`);
  const own = { owner: user, asOwner: true };
  const steps: Step[] = [
    {
      kind: "account",
      name: user,
      home,
      system: false,
      comment: commentFor(repo),
      why: `${repo} is built by a user of its own, who can do no harm to others`,
    },
    folder(home, 0o700, "closed to other repos", user),
    { kind: "folder", path: join(home, ".ssh"), mode: 0o700, ...own, why: "its keys" },
    {
      kind: "key",
      path: keyFile,
      owner: user,
      comment: `${user}@${facts.hostname} ${repo}`,
      why: "its deploy key",
    },
    ...hostKeySteps(remote, join(home, ".ssh/known_hosts"), user),
  ];
  if (!wishes.timer) {
    if (facts.hooks === undefined)
      throw new UsageError(`there is no ${places.hooks}; run setup server first`);
    const entry = { repo, user, dir, secretFile, refs: wishes.refs, afterwards: wishes.afterwards };
    addRepo(facts.hooks, entry); // a file that cannot be added to is said now, before anything is touched
    steps.push(
      {
        kind: "secret",
        path: secretFile,
        mode: 0o600,
        why: "the forge signs its deliveries with it",
      },
      {
        kind: "edit",
        path: places.hooks,
        mode: 0o644,
        edit: (text) => addRepo(text, entry),
        what: hasRepo(facts.hooks, repo) ? `entry of ${repo}` : `an entry for ${repo}`,
        why: "hook-server reads it at once",
      },
    );
  }
  steps.push({
    kind: "clone",
    path: dir,
    owner: user,
    url: remote.url,
    branch: wishes.branch,
    why: "the checkout that is built",
  });
  if (wishes.timer)
    steps.push({ kind: "enable", units: [`build@${user}.timer`], why: "looks for new commits" });
  return { steps, notes: [], user, secretFile, keyFile, remote };
}

function hostKeySteps(remote: ReturnType<typeof readRemote>, path: string, owner: string): Step[] {
  if (remote.host === undefined) return [];
  const line =
    remote.sshPort === undefined || remote.sshPort === 22 ? knownHost(remote.host) : undefined;
  if (line !== undefined) {
    const edit = (text: string) =>
      text.split("\n").includes(line)
        ? text
        : `${text === "" || text.endsWith("\n") ? text : `${text}\n`}${line}\n`;
    const what = `the published ssh key of ${remote.host}`;
    return [
      {
        kind: "edit",
        path,
        mode: 0o600,
        owner,
        asOwner: true,
        edit,
        what,
        why: "so that ssh need not ask",
      },
    ];
  }
  if (remote.sshPort === undefined) return [];
  const name = hostName(remote.host, remote.sshPort);
  const why = `so that ssh need not ask; compare what is printed with what ${name} publishes`;
  return [{ kind: "host-key", path, owner, host: remote.host, port: remote.sshPort, why }];
}

export interface SlaveWishes {
  base: string | undefined;
  user: string | undefined;
  secretFile: string | undefined;
}

/** `setup slave`: slave-server and slave-activate, with an account that owns nothing else. */
export function planSlave(facts: Facts, wishes: SlaveWishes): Plan {
  const user = chooseAccount(
    { what: "slave", derived: "slave", given: wishes.user },
    facts.accounts,
  );
  const home = facts.accounts.get(user)?.home ?? "/srv/slave";
  if (wishes.base !== undefined) readRemote(wishes.base);
  const scripts = ["slave-server", "slave-activate"];
  const units = ["slave-server.socket", "slave-server.service"];
  const service = templates["slave-server.service"]
    .replace(/^User=slave$/m, `User=${user}`)
    .replaceAll("/srv/slave", home);
  const settings = `# Made by setup slave; templates/slave.yml of Boatyard shows all that can stand here.
# The master signs its requests with the same secret.
secret_file: ${places.slaveSecret}

# REPO is cloned from BASE/REPO.git, and put at ~/repos/REPO.
base: ${JSON.stringify(wishes.base ?? "https://github.com/aiegoo/")}

# Which repos may be asked for; * stands for anything. Default: all.
# allow: [site, "app-*"]

# Runs in the new tree once it is in place; if it fails, the old one is put back.
# after: make -s
`;
  return {
    steps: [
      ...scriptSteps(facts, scripts),
      {
        kind: "link",
        path: "/bin/slave-activate",
        to: join(places.scripts, "slave-activate.mjs"),
        why: "where document 2 has it",
      },
      {
        kind: "account",
        name: user,
        home,
        system: true,
        comment: commentFor("slave"),
        why: "fetches and switches the repos, and owns nothing else",
      },
      folder(home, 0o755, "its repos, which a web server may read", user),
      folder(places.config, 0o755, "configuration and secrets"),
      {
        kind: "secret",
        path: places.slaveSecret,
        mode: 0o600,
        owner: user,
        ...(wishes.secretFile === undefined ? {} : { from: wishes.secretFile }),
        why: "requests must be signed with it; the master has the same",
      },
      {
        kind: "file",
        path: places.slave,
        text: settings,
        mode: 0o644,
        once: true,
        why: "where repos come from, and which; yours from now on",
      },
      unit("slave-server.socket", "holds the address, also while the server restarts"),
      {
        ...unit("slave-server.service", "runs slave-server, with no powers"),
        text: service,
      } as Step,
      ...started(units, scripts),
    ],
    notes: [
      {
        title: "On the master",
        lines: [
          `add a line to ${places.list}: ${facts.hostname}`,
          ...(wishes.secretFile === undefined
            ? [
                `put the secret of ${places.slaveSecret} into ${places.listSecret} (or that one here, with --secret-file)`,
              ]
            : []),
          "server-update --status REPO --secret-file /etc/server-update/secret",
        ],
      },
    ],
  };
}

export interface AppWishes {
  app: string;
  server: string;
  key: string;
  user: string | undefined;
}

/** `setup app NAME`: an account, a deploy directory, the first install, and launchfit as a service. */
export function planApp(facts: Facts, wishes: AppWishes): Plan {
  if (!isAppName(wishes.app))
    throw new UsageError(`"${wishes.app.slice(0, 200)}" is no app's name`);
  if (!/^https?:\/\/|^file:\/\//.test(wishes.server))
    throw new UsageError(`--server: "${wishes.server}" is no https, http or file URL`);
  if (!/^(?:0x)?[0-9A-Fa-f]{40,64}$/.test(wishes.key))
    throw new UsageError("--key: a whole fingerprint is 40 hex digits, without spaces");
  const derived = unixName(wishes.app);
  const user = chooseAccount(
    { what: `app ${wishes.app}`, derived, given: wishes.user },
    facts.accounts,
  );
  // launchfit@.service knows the folder by the user's name
  const dir = join("/srv", user);
  return {
    steps: [
      ...scriptSteps(facts, ["launchfit"]),
      {
        kind: "account",
        name: user,
        home: dir,
        system: true,
        comment: commentFor(`app ${wishes.app}`),
        why: "the app runs as a user of its own",
      },
      folder(dir, 0o755, "its deploy directory", user),
      unit("launchfit@.service", "keeps it running and up to date"),
      {
        kind: "install",
        path: dir,
        owner: user,
        argv: [join(places.bin, "launchfit"), wishes.server, "--key", wishes.key],
        why: "the first install; everything must be signed by that key",
      },
      ...started([`launchfit@${user}.service`], ["launchfit"]),
    ],
    notes: [
      {
        title: "Next",
        lines: [`settings of the app: ${dir}/launchify.yml`, `launchfit status --dir ${dir}`],
      },
    ],
  };
}

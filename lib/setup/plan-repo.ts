import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { isRepoName, isSafeRef } from "../core/names.ts";
import { chooseAccount, commentFor, unixName } from "./accounts.ts";
import { hostName, knownHost, readRemote } from "./forge.ts";
import { addRepo, hasRepo } from "./hooks-file.ts";
import { places } from "./places.ts";
import { folder } from "./plan-parts.ts";
import { hookServerStarted, withoutAccount } from "./plan-server.ts";
import type { Facts, Plan, Step } from "./step.ts";

export interface RepoWishes {
  repo: string;
  url: string | undefined;
  user: string | undefined;
  branch: string | undefined;
  refs: readonly string[];
  afterwards: readonly string[];
  /** Build by a timer: no webhook, no secret. */
  timer: boolean;
  /** Where the forge reaches this server. */
  address?: string | undefined;
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
    throw new UsageError(
      `"${repo.slice(0, 200)}" is no repository; write OWNER/NAME as the forge shows it: letters, digits, ".", "_" and "-", no .git`,
    );
  const remote = readRemote(wishes.url ?? `https://github.com/${repo}.git`);
  checkWords(wishes);
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
  steps.push({
    kind: "enable",
    units: [`logs-rotate@${user}.timer`],
    why: "its log stays small, and old parts go",
  });
  // after a restore the last repo to get its account starts the server
  const rest = withoutAccount(facts).filter((name) => name !== repo);
  if (!wishes.timer && facts.hookServer && facts.root === "/" && rest.length === 0)
    steps.push(...hookServerStarted());
  return { steps, notes: [], user, secretFile, keyFile, remote };
}

/** hook-server would refuse a wrong word only later, and the whole file with it. */
function checkWords({ branch, refs, address }: RepoWishes): void {
  if (branch !== undefined && !isSafeRef(branch))
    throw new UsageError(`--branch: "${branch}" is no name of a branch`);
  for (const ref of refs)
    if (!isSafeRef(ref.replaceAll("*", "x")))
      throw new UsageError(
        `--refs: "${ref}" is no branch or tag, and no pattern such as release/*`,
      );
  if (address !== undefined && !/^https?:\/\/[^/]/.test(address))
    throw new UsageError(`--address: "${address}" is no URL; write https://hooks.example.com`);
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

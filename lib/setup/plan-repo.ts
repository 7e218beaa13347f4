import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { isRepoName, isSafeRef } from "../core/names.ts";
import { readIfThere } from "../files/files.ts";
import { chooseAccount, unixName } from "./accounts.ts";
import {
  deployKeyPage,
  type Forge,
  guessForge,
  hostName,
  knownHost,
  readRemote,
  type Remote,
  webhookNote,
} from "./forge.ts";
import { addRepo, hasRepo } from "./hooks-file.ts";
import { account, folder, hookServerStarted, withoutAccount } from "./plan-server.ts";
import { type Facts, type Note, places, type Plan, type Step } from "./step.ts";

export interface RepoOptions {
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
  /** Whose words to use; default: by the URL. */
  forge?: string | undefined;
}

/** What `setup repo` knows at the end, for its notes. */
export interface RepoPlan extends Plan {
  user: string;
  secretFile: string;
  keyFile: string;
  remote: Remote;
}

/** `setup repo OWNER/NAME`: an account, a key, a secret, an entry in hooks.yml, a checkout. */
export function planRepo(facts: Facts, options: RepoOptions): RepoPlan {
  const { repo, refs, afterwards, branch } = options;
  if (!isRepoName(repo))
    throw new UsageError(
      `"${repo.slice(0, 200)}" is not a repository name; write OWNER/NAME as the forge shows it: letters, digits, ".", "_" and "-", no .git`,
    );
  const remote = readRemote(options.url ?? `https://github.com/${repo}.git`);
  checkWords(options);
  const derived = unixName(repo.split("/").at(-1) ?? "");
  const user = chooseAccount({ what: repo, derived, given: options.user }, facts.accounts);
  const home = facts.accounts.get(user)?.home ?? join("/home", user);
  const dir = join(home, user);
  const keyFile = join(home, ".ssh/id_ed25519");
  const secretFile = join(places.config, `${user}.secret`);
  const own = { owner: user, asOwner: true };
  const ownUser = `${repo} is built by a user of its own, who cannot harm other repos`;
  const keyName = `${user}@${facts.hostname} ${repo}`;
  const steps: Step[] = [
    account(user, { home, system: false, what: repo, why: ownUser }),
    folder(home, 0o700, "closed to other repos", user),
    { kind: "folder", path: join(home, ".ssh"), mode: 0o700, ...own, why: "its keys" },
    { kind: "key", path: keyFile, owner: user, comment: keyName, why: "its deploy key" },
    ...hostKeySteps(remote, join(home, ".ssh/known_hosts"), user),
  ];
  if (!options.timer) {
    if (facts.hooks === undefined)
      throw new UsageError(`there is no ${places.hooks}; run setup server first`);
    const entry = { repo, user, dir, secretFile, refs, afterwards };
    addRepo(facts.hooks, entry); // a file that cannot be added to is said now, before anything is touched
    const why = "the forge signs its deliveries with it";
    steps.push({ kind: "secret", path: secretFile, mode: 0o600, why });
    steps.push({
      kind: "edit",
      path: places.hooks,
      mode: 0o644,
      edit: (text) => addRepo(text, entry),
      what: hasRepo(facts.hooks, repo) ? `entry of ${repo}` : `an entry for ${repo}`,
      why: "hook-server reads it at once",
    });
  }
  const why = "the checkout that is built";
  steps.push({ kind: "clone", path: dir, owner: user, url: remote.url, branch, why });
  if (options.timer)
    steps.push({ kind: "enable", units: [`build@${user}.timer`], why: "looks for new commits" });
  const rotate = [`logs-rotate@${user}.timer`];
  steps.push({ kind: "enable", units: rotate, why: "its log stays small, and old parts go" });
  // after a restore the last repo to get its account starts the server
  const rest = withoutAccount(facts).filter((name) => name !== repo);
  if (!options.timer && facts.hookServer && facts.root === "/" && rest.length === 0)
    steps.push(...hookServerStarted());
  return { steps, notes: [], user, secretFile, keyFile, remote };
}

/** hook-server would refuse a wrong word only later, and the whole file with it. */
function checkWords({ branch, refs, address }: RepoOptions): void {
  if (branch !== undefined && !isSafeRef(branch))
    throw new UsageError(`--branch: "${branch}" is not a branch name`);
  for (const ref of refs)
    if (!isSafeRef(ref.replaceAll("*", "x")))
      throw new UsageError(
        `--refs: "${ref}" is not a branch or tag, nor a pattern such as release/*`,
      );
  if (address !== undefined && !/^https?:\/\/[^/]/.test(address))
    throw new UsageError(`--address: "${address}" is not a URL; write https://hooks.example.com`);
}

function hostKeySteps(remote: Remote, path: string, owner: string): Step[] {
  if (remote.host === undefined) return [];
  const line =
    remote.sshPort === undefined || remote.sshPort === 22 ? knownHost(remote.host) : undefined;
  if (line !== undefined) {
    const edit = (text: string) =>
      text.split("\n").includes(line)
        ? text
        : `${text === "" || text.endsWith("\n") ? text : `${text}\n`}${line}\n`;
    const what = `the published ssh key of ${remote.host}`;
    const why = "so that ssh need not ask";
    return [{ kind: "edit", path, mode: 0o600, owner, asOwner: true, edit, what, why }];
  }
  if (remote.sshPort === undefined) return [];
  const name = hostName(remote.host, remote.sshPort);
  const why = `so that ssh need not ask; compare what is printed with what ${name} publishes`;
  return [{ kind: "host-key", path, owner, host: remote.host, port: remote.sshPort, why }];
}

/** What a person carries from here to the forge: the webhook with its secret, once, and the deploy key. */
export async function repoNotes(
  { remote, secretFile, keyFile }: RepoPlan,
  { repo, timer, address, forge }: RepoOptions,
  { root, hostname }: Facts,
  made: ReadonlyMap<string, string>,
): Promise<Note[]> {
  const kind = (forge as Forge | undefined) ?? guessForge(remote.host);
  const site = `https://${remote.host ?? "github.com"}`;
  const notes: Note[] = [];
  if (!timer)
    notes.push(
      webhookNote(kind, site, repo, {
        address: address ?? `https://${hostname}`,
        secret: made.get(secretFile),
        secretFile,
      }),
    );
  const key = await readIfThere(join(root, `${keyFile}.pub`)).catch(() => undefined);
  if (key !== undefined)
    notes.push({
      title: `The deploy key, if the repo is private: ${deployKeyPage(kind, site, repo)}`,
      lines: [key.trim()],
    });
  return notes;
}

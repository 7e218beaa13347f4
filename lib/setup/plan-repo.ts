import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { cleanLine } from "../core/clean.ts";
import { UsageError } from "../core/errors.ts";
import { isRepoName, isSafeRef } from "../core/names.ts";
import { account, chooseAccount, commentFor, unixName } from "./accounts.ts";
import { edit, folder, readOwn } from "./file-steps.ts";
import {
  deployKeyPage,
  type Forge,
  guessForge,
  hostName,
  knownHost,
  readRemote,
  type Remote,
  webhookNote,
  withLines,
} from "./forge.ts";
import { addRepo, hasRepo, namesBranch, removeRepo } from "./hooks-file.ts";
import { clone, hostKey, key, secret } from "./key-steps.ts";
import { hookServerStarted, withoutAccount } from "./plan-server.ts";
import { enable } from "./service-steps.ts";
import { type Facts, inRoot, type Note, places, type Plan, type Step } from "./step.ts";

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
      `"${repo.slice(0, 200)}" is not a repository name; write OWNER/NAME as the forge shows it: ` +
        `letters, digits, ".", "_" and "-", no .git`,
    );
  const remote = readRemote(options.url ?? `https://github.com/${repo}.git`);
  checkWords(options);
  const derived = unixName(repo.split("/").at(-1) ?? "");
  const entry = facts.repos.find((each) => each.repo === repo);
  if (options.user !== undefined && (entry?.user ?? options.user) !== options.user)
    throw new UsageError(
      `--user: ${repo} is built by ${entry?.user}, as ${places.hooks} says; leave --user out, or first: ` +
        `setup remove repo ${repo}`,
    );
  const user = chooseAccount({ what: repo, derived, given: options.user ?? entry?.user }, facts.accounts);
  const home = facts.accounts.get(user)?.home ?? join("/home", user);
  const ownDir = join(home, user);
  const dir = entry?.dir ?? ownDir;
  const other = facts.repos.find((each) => each !== entry && each.dir === dir);
  if (other && !entry)
    throw new UsageError(`${dir} is the checkout of ${other.repo}; name another account for ${repo} with --user`);
  const keyFile = join(home, ".ssh/id_ed25519");
  const secretFile = join(places.config, `${user}.secret`);
  const ownUser = `${repo} is built by a user of its own, who cannot harm other repos`;
  const comment = `${user}@${facts.hostname} ${repo}`;
  // a person's own account and home, named on purpose, are not ours to remove
  const there = facts.accounts.get(user);
  const isOurs = there === undefined || there.comment === commentFor(repo);
  const holds = isOurs ? "data" : "others";
  const steps: Step[] = [
    account({ name: user, home, system: false, purpose: repo, why: ownUser }),
    folder({
      ...{ path: home, mode: 0o700, owner: user, asOwner: !isOurs, holds },
      why: "closed to other repos",
    }),
    folder({ path: join(home, ".ssh"), mode: 0o700, owner: user, asOwner: true, why: "its keys" }),
    key({ path: keyFile, owner: user, comment, why: "its deploy key" }),
    ...hostKeySteps(remote, join(home, ".ssh/known_hosts"), user),
  ];
  const why = "the checkout that is built";
  const cloned = clone({ path: dir, owner: user, url: remote.url, branch, why });
  const checkout = [
    // one elsewhere is where a person wants it, and may hold more
    dir === ownDir ? cloned : withoutUndo(cloned),
    enable([`logs-rotate@${user}.timer`], "its log stays small, and old parts go"),
  ];
  if (options.timer)
    return {
      steps: [...steps, ...checkout, enable([`build@${user}.timer`], "looks for new commits")],
      notes: [],
      ...{ user, secretFile, keyFile, remote },
    };
  if (facts.hooks === undefined) throw new UsageError(`there is no ${places.hooks}; run setup server first`);
  if (facts.hooksProblem !== undefined) throw new UsageError(facts.hooksProblem);
  // what the checkout is on is what is built, whatever the forge's default branch is
  const built = refs.length > 0 || branch === undefined ? refs : [branch];
  const added = { repo, user, dir, secretFile, refs: built, afterwards };
  addRepo(facts.hooks, added); // a file that cannot be added to is said now, before anything is touched
  const isThere = hasRepo(facts.hooks, repo);
  steps.push(
    secret({ path: secretFile, why: "the forge signs its deliveries with it" }),
    ...checkout,
    // after the clone, since hook-server reads it at once: the first push finds a whole checkout on its branch
    edit({
      ...{ path: places.hooks, why: "hook-server reads it at once" },
      change: (text) => addRepo(text, added),
      what: isThere ? `entry of ${repo}` : `an entry for ${repo}`,
      back: { change: (text) => removeRepo(text, repo), what: `entry of ${repo}` },
    }),
  );
  // after a restore the last repo to get its account starts the server
  const rest = withoutAccount(facts).filter((name) => name !== repo);
  const starts = facts.hookServer && facts.root === "/" && rest.length === 0;
  return {
    steps: [...steps, ...(starts ? hookServerStarted().map(withoutUndo) : [])],
    notes: [],
    warnings: entryWarnings(facts, options, isThere),
    ...{ user, secretFile, keyFile, remote },
  };
}

/** The server stays when a repo goes. */
function withoutUndo(step: Step): Step {
  return { ...step, undo: undefined };
}

/** An entry that is there is a person's, and stays: what the command line asks for beyond it is said. */
function entryWarnings({ repos }: Facts, { repo, branch, refs, afterwards }: RepoOptions, isThere: boolean): string[] {
  if (!isThere) return [];
  const entry = repos.find((each) => each.repo === repo);
  const warnings: string[] = [];
  const flags = [...(refs.length > 0 ? ["--refs"] : []), ...(afterwards.length > 0 ? ["--then"] : [])];
  if (flags.length > 0)
    warnings.push(
      `${repo} is in ${places.hooks} already and stays as it is; ` +
        `${flags.join(" and ")} count for a new entry only: edit the file`,
    );
  if (branch !== undefined && !entry?.refs?.some((ref) => namesBranch(ref, branch)))
    warnings.push(
      `the entry of ${repo} in ${places.hooks} does not say that ${branch} is built; add to it: refs: [${branch}]`,
    );
  return warnings;
}

/** hook-server would refuse a wrong word only later, and the whole file with it. */
function checkWords({ url, branch, refs, address, afterwards, timer }: RepoOptions): void {
  if (/^[a-z]+:\/\/[^/]*\/?$/.test(url ?? ""))
    throw new UsageError(
      `--url: "${url}" names a host only; write the repository's path, too: ${url?.replace(/\/$/, "")}/OWNER/NAME.git`,
    );
  if (timer && refs.length + afterwards.length > 0)
    throw new UsageError(
      "--timer builds the checkout's branch, without hooks.yml; " +
        `leave ${refs.length > 0 ? "--refs" : "--then"} out, or --timer`,
    );
  if (branch !== undefined && !isSafeRef(branch)) throw new UsageError(`--branch: "${branch}" is not a branch name`);
  for (const ref of refs)
    if (!isSafeRef(ref.replaceAll("*", "x")))
      throw new UsageError(`--refs: "${ref}" is not a branch or tag, nor a pattern such as release/*`);
  if (branch !== undefined && refs.length > 0 && !refs.some((ref) => namesBranch(ref, branch)))
    throw new UsageError(
      `--refs ${refs.join(",")} leaves out --branch ${branch}: a push would switch the checkout to another branch; ` +
        `name ${branch} in --refs too, or leave --branch out`,
    );
  if (address !== undefined && !/^https?:\/\/[^/\s]\S*$/.test(address))
    throw new UsageError(`--address: "${address}" is not a URL; write https://hooks.example.com`);
}

function hostKeySteps(remote: Remote, path: string, owner: string): Step[] {
  if (remote.host === undefined) return [];
  const line = remote.sshPort === undefined || remote.sshPort === 22 ? knownHost(remote.host) : undefined;
  if (line !== undefined) {
    const change = (text: string) => withLines(text, [line]);
    const what = `the published ssh key of ${remote.host}`;
    const why = "so that ssh need not ask";
    return [edit({ path, mode: 0o600, owner, asOwner: true, change, what, why })];
  }
  if (remote.sshPort === undefined) return [];
  const name = hostName(remote.host, remote.sshPort);
  const why = `so that ssh need not ask; compare what is printed with what ${name} publishes`;
  return [hostKey({ path, owner, host: remote.host, port: remote.sshPort, why })];
}

/** What a person carries from here to the forge: the webhook with its secret, once, and the deploy key. */
export async function repoNotes(
  { remote, secretFile, keyFile, user }: RepoPlan,
  { repo, timer, address, forge }: RepoOptions,
  { root, hostname }: Facts,
  made: ReadonlySet<string>,
): Promise<Note[]> {
  const kind = (forge as Forge | undefined) ?? guessForge(remote.host);
  const site = `https://${remote.host ?? "github.com"}`;
  const notes: Note[] = [];
  if (!timer)
    notes.push(
      webhookNote(kind, site, repo, {
        address: address ?? `https://${hostname}`,
        secret: made.has(secretFile) ? (await readFile(await inRoot(root, secretFile), "utf8")).trim() : undefined,
        secretFile,
      }),
    );
  // its user could have put a link there, to a file that only root can read
  const own = { owner: user, asOwner: true };
  const key = root === "/" ? await readOwn(`${keyFile}.pub`, own) : undefined;
  if (key !== undefined)
    notes.push({
      title: `The deploy key, if the repo is private: ${deployKeyPage(kind, site, repo)}`,
      lines: [cleanLine(key.trim())],
    });
  return notes;
}

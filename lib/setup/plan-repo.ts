import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { cleanLine } from "../core/clean.ts";
import { UsageError } from "../core/errors.ts";
import { isRepoName, isSafeRef } from "../core/names.ts";
import { $ } from "../exec/exec.ts";
import { commentFor } from "../exec/users.ts";
import { account, command, data, file, folder, inHomeOf, inRoot, type Item, kept, unit } from "../items/items.ts";
import { running } from "../items/services.ts";
import { chooseAccount, unixName } from "./accounts.ts";
import { deployKeyPage, type Forge, guessForge, readRemote, type Remote, webhookNote } from "./forge.ts";
import { entryText, fileFor, namesBranch } from "./hooks-file.ts";
import { clone, hostKey, readInHome, secret, sshKey } from "./keys.ts";
import { type Facts, type Note, places, type Plan } from "./machine.ts";
import { hookServerRuns, withoutAccount } from "./plan-server.ts";
import { scriptFile } from "./scripts.ts";

export interface RepoOptions {
  repo: string;
  url: string | undefined;
  user: string | undefined;
  branch: string | undefined;
  refs: readonly string[];
  afterwards: readonly string[];
  /** When hook-server runs it without a push, too: a time as systemd.time(7) has them. */
  schedule?: string | undefined;
  /** Where the forge reaches this server. */
  address?: string | undefined;
  /** Whose words to use; default: by the URL. */
  forge?: string | undefined;
  /** Also a secret that is not fresh is shown. */
  "show-secret"?: boolean;
}

/** What `setup repo` knows at the end, for its notes. */
export interface RepoPlan extends Plan {
  user: string;
  secretFile: string;
  keyFile: string;
  remote: Remote;
}

/** `setup repo OWNER/NAME`: an account, a key, a secret, a checkout, a file in hooks.d. */
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
      `--user: ${repo} is built by ${entry?.user}, as ${entry?.file} says; leave --user out, or first: ` +
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
  // a person's own account and home, named on purpose, are not ours to remove
  const there = facts.accounts.get(user);
  const isOurs = there === undefined || there.comment === commentFor(repo);
  const flags = Object.entries({ url: options.url, user: options.user, branch }).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, value],
  );
  const live = [["setup repo", repo, ...flags].join(" ")];
  const ofUser = { user, live };
  const items: Item[] = [
    ...(isOurs
      ? [
          account({
            ...{ name: user, home, purpose: repo, shell: "/bin/bash" },
            why: `${repo} is built by a user of its own, who cannot harm other repos`,
          }),
          folder({ path: home, mode: 0o700, owner: user, holds: "data", why: "closed to other repos" }),
        ]
      : [closedHome(home, user, live)]),
    sshKey({ ...ofUser, path: keyFile, comment: `${user}@${facts.hostname} ${repo}`, why: "its deploy key" }),
    ...hostKey(remote, { ...ofUser, path: join(home, ".ssh/known_hosts"), why: "so that ssh need not ask" }),
  ];
  const checkout = [
    // one elsewhere is where a person wants it, and may hold more
    clone({
      ...{ ...ofUser, path: dir, url: remote.url, branch, isOurs: dir === ownDir },
      why: "the checkout that is built",
    }),
    running([`logs-rotate@${user}.timer`], "its log stays small, and old parts go"),
  ];
  if (facts.hooks === undefined) throw new UsageError(`there is no ${places.hooks}; run setup server first`);
  if (facts.hooksProblem !== undefined) throw new UsageError(facts.hooksProblem);
  // what the checkout is on is what is built, whatever the forge's default branch is
  const built = refs.length > 0 || branch === undefined ? refs : [branch];
  const text = entryText({ repo, user, dir, secretFile, refs: built, afterwards });
  const path = fileFor(repo);
  // after a restore the last repo to get its account starts the server
  const rest = withoutAccount(facts).filter((name) => name !== repo);
  const starts = facts.hookServer && facts.root === "/" && rest.length === 0;
  return {
    items: [
      ...items,
      secret({ path: secretFile, why: "the forge signs its deliveries with it" }),
      ...checkout,
      // after the clone, since hook-server reads it at once: the first push finds a whole checkout on its branch
      ...(entry === undefined || entry.file === path
        ? [data(file({ path, text, once: true, why: "hook-server reads it at once; yours from now on" }), false)]
        : []),
      ...(options.schedule === undefined ? [] : scheduled(facts, repo, options.schedule)),
      // the server stays when a repo goes
      ...(starts ? [kept(hookServerRuns(facts))] : []),
    ],
    warnings: entry ? entryWarnings(entry, options) : [],
    ...{ user, secretFile, keyFile, remote, notes: [] },
  };
}

/** A timer on which hook-server runs a repo, whether something was pushed or not. */
export function scheduled(facts: Facts, repo: string, when: string): Item[] {
  const name = `hook-run-${repo.replace("/", ":")}`;
  const about = `[Unit]\nDescription=Boatyard: run ${repo}, by the clock\n\n`;
  const command = `${scriptFile(facts, "hook-server")} run ${repo} --quiet`;
  const timer = `[Timer]\nOnCalendar=${when}\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n`;
  return [
    unit(`${name}.service`, `${about}[Service]\nType=oneshot\nExecStart=${command}\n`, "asks hook-server for a run"),
    unit(`${name}.timer`, about + timer, `… at ${when}`),
    running([`${name}.timer`], "on now, and at every boot"),
  ];
}

/** @throws {UsageError} for what systemd does not take for a time */
export async function checkTime(when: string): Promise<void> {
  const { ok, stderr } = await $({ nothrow: true })`systemd-analyze calendar -- ${when}`;
  if (ok && !/[\n%]/.test(when)) return;
  throw new UsageError(
    `--schedule: ${cleanLine(stderr.trim() || when)}; write a time as in systemd.time(7): 'Mon 03:00'`,
  );
}

/** A person's own home keeps its owner and group. */
function closedHome(home: string, user: string, live: readonly string[]): Item {
  return command({
    ...{ what: `folder ${home} 0700 of ${user}`, why: "closed to other repos", user, live },
    test: (sh) => sh`test "$(stat -c %a -- ${home})" = 700`,
    make: async () => void (await (await inHomeOf(user))`chmod 700 -- ${home}`),
  });
}

/** An entry that is there is a person's, and stays: what the command line asks for beyond it is said. */
function entryWarnings(
  { file: path, refs: named }: Facts["repos"][number],
  { repo, branch, refs, afterwards }: RepoOptions,
): string[] {
  const warnings: string[] = [];
  const flags = [...(refs.length > 0 ? ["--refs"] : []), ...(afterwards.length > 0 ? ["--then"] : [])];
  if (flags.length > 0)
    warnings.push(
      `${repo} is in ${path} already and stays as it is; ` +
        `${flags.join(" and ")} count for a new entry only: edit the file`,
    );
  if (branch !== undefined && !named?.some((ref) => namesBranch(ref, branch)))
    warnings.push(`the entry of ${repo} in ${path} does not say that ${branch} is built; add to it: refs: [${branch}]`);
  return warnings;
}

/** hook-server would refuse a wrong word only later, and the whole file with it. */
function checkWords({ url, branch, refs, address }: RepoOptions): void {
  if (/^[a-z]+:\/\/[^/]*\/?$/.test(url ?? ""))
    throw new UsageError(
      `--url: "${url}" names a host only; write the repository's path, too: ${url?.replace(/\/$/, "")}/OWNER/NAME.git`,
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

/** What a person carries from here to the forge: the webhook with its secret, and the deploy key. */
export async function repoNotes(
  { remote, secretFile, keyFile, user }: RepoPlan,
  { repo, address, forge, "show-secret": isShown = false }: RepoOptions,
  { root, hostname }: Facts,
  made: ReadonlySet<string>,
): Promise<Note[]> {
  const kind = (forge as Forge | undefined) ?? guessForge(remote.host);
  const site = `https://${remote.host ?? "github.com"}`;
  const isTold = isShown || made.has(secretFile);
  const notes: Note[] = [
    webhookNote(kind, site, repo, {
      address: address ?? `https://${hostname}`,
      secret: isTold ? (await readFile(await inRoot(root, secretFile), "utf8")).trim() : undefined,
      secretFile,
    }),
  ];
  const key = root === "/" ? await readInHome(user, `${keyFile}.pub`) : undefined;
  if (key !== undefined)
    notes.push({
      title: `The deploy key, if the repo is private: ${deployKeyPage(kind, site, repo)}`,
      lines: [cleanLine(key.trim())],
    });
  return notes;
}

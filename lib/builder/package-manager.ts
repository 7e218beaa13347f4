import { Failure } from "../core/errors.ts";

/** Which program installs a repo's packages, told by the files at its top. Pure. */

/** What the top folder of a repo holds. */
export interface RepoFiles {
  /** Its file names. */
  names: ReadonlySet<string>;
  /** The `packageManager` field of package.json: `pnpm@9.1.0+sha512.…`. */
  packageManager?: string | undefined;
  /** The content of yarn.lock. */
  yarnLock?: string | undefined;
}

export interface PackageManager {
  name: "npm" | "pnpm" | "yarn" | "bun" | "deno";
  /** The lock file that is there; without one the manager chooses versions, and writes it. */
  lock?: string | undefined;
  /** What it is told. */
  args: readonly string[];
  /** Files at the top that decide what it does, beside package.json and the lock file. */
  settings: readonly string[];
  /** The versions that read this lock file: a test of the major number, and what to install. */
  version?: { fits: (major: number) => boolean; wanted: string } | undefined;
}

/** Each manager's lock files, settings, and install that keeps to the lock file. */
const managers: readonly {
  name: PackageManager["name"];
  locks: readonly string[];
  frozen: readonly string[];
  settings: readonly string[];
}[] = [
  {
    name: "npm",
    // npm itself takes the first before the second
    locks: ["npm-shrinkwrap.json", "package-lock.json"],
    frozen: ["ci"],
    settings: [".npmrc"],
  },
  {
    name: "pnpm",
    locks: ["pnpm-lock.yaml"],
    frozen: ["install", "--frozen-lockfile"],
    settings: [".npmrc", "pnpm-workspace.yaml", ".pnpmfile.cjs"],
  },
  {
    name: "yarn",
    locks: ["yarn.lock"],
    frozen: ["install", "--immutable"],
    settings: [".yarnrc.yml", ".yarnrc", ".npmrc"],
  },
  {
    name: "bun",
    locks: ["bun.lock", "bun.lockb"],
    frozen: ["install", "--frozen-lockfile"],
    settings: ["bunfig.toml", ".npmrc"],
  },
  {
    name: "deno",
    locks: ["deno.lock"],
    frozen: ["install", "--frozen"],
    settings: ["deno.json", "deno.jsonc", ".npmrc"],
  },
];

/** Words that keep a manager from asking, and from lines that nobody reads in a log. */
const quietly: Readonly<Partial<Record<PackageManager["name"], readonly string[]>>> = {
  npm: ["--no-audit", "--no-fund", "--no-update-notifier", "--no-progress"],
  // node_modules that another manager made is replaced; nobody is there to be asked
  pnpm: ["--config.confirmModulesPurge=false", "--config.update-notifier=false"],
};

/**
 * The package manager of a repo: npm where there is a lock file of npm; else the one that `packageManager` in
 * package.json names; else the one whose lock file is there; else npm. Deno's lock file counts beside a deno.json.
 * @returns undefined when the repo has nothing to install from.
 * @throws {Failure} when it cannot be told.
 */
export function choosePackageManager(repo: RepoFiles): PackageManager | undefined {
  const { names, packageManager } = repo;
  const isDeno = names.has("deno.json") || names.has("deno.jsonc");
  const present = managers.filter(
    ({ name, locks }) => locks.some((lock) => names.has(lock)) && (name !== "deno" || isDeno),
  );
  if (present[0]?.name === "npm") return describe("npm", repo);
  if (packageManager !== undefined) {
    const name = packageManager.split("@", 1)[0] ?? "";
    const known = managers.find((each) => each.name === name);
    if (known) return describe(known.name, repo);
    throw new Failure(
      `package.json: packageManager ${JSON.stringify(packageManager)} is not npm, pnpm, yarn, bun or deno; ` +
        "name a command of your own for the stage install in build.yml",
    );
  }
  // a deno.lock beside another's lock file belongs to tools of the repo
  const [first, second] = present.filter(({ name }, _, all) => name !== "deno" || all.length === 1);
  if (first && second)
    throw new Failure(
      `lock files of ${first.name} and of ${second.name} are here; remove one, or set packageManager in package.json`,
    );
  if (first) return describe(first.name, repo);
  return names.has("package.json") ? describe("npm", repo) : undefined;
}

function describe(name: PackageManager["name"], { names, yarnLock }: RepoFiles): PackageManager {
  const { locks, frozen, settings } = managers.find(
    (each) => each.name === name,
  ) as (typeof managers)[0];
  const lock = locks.find((each) => names.has(each));
  const quiet = quietly[name] ?? [];
  const manager = { name, lock, settings, args: [...(lock ? frozen : ["install"]), ...quiet] };
  if (name !== "yarn" || yarnLock === undefined) return manager;
  // yarn 1 and the later ones cannot read each other's lock file: one would write it anew
  if (/^__metadata:/m.test(yarnLock))
    return { ...manager, version: { fits: (major) => major >= 2, wanted: "yarn 2 or later" } };
  return {
    ...manager,
    args: ["install", "--frozen-lockfile", "--non-interactive"],
    version: { fits: (major) => major === 1, wanted: "yarn 1" },
  };
}

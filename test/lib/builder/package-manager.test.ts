import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageManager } from "../../../lib/builder/install.ts";
import { writeFiles } from "../../helpers/repos.ts";
import { tempDir } from "../../helpers/tmp.ts";

interface More {
  packageManager?: string;
  yarnLock?: string;
}

/** Who installs in a folder with these files. */
async function choose(names: string, more: More = {}) {
  const dir = tempDir();
  const files = Object.fromEntries(names.split(" ").map((name) => [name, ""]));
  if ("package.json" in files) files["package.json"] = JSON.stringify({ packageManager: more.packageManager });
  if (more.yarnLock !== undefined) files["yarn.lock"] = more.yarnLock;
  await writeFiles(dir, files);
  return await packageManager(dir);
}

const table: [title: string, names: string, more: More, expect: string | undefined][] = [
  ["nothing to install from", "readme.md", {}, undefined],
  ["a package.json alone", "package.json", {}, "npm install"],
  ["npm's lock file", "package.json package-lock.json", {}, "npm ci"],
  ["a shrinkwrap", "package.json npm-shrinkwrap.json package-lock.json", {}, "npm ci"],
  ["npm's lock file beside another's", "package.json package-lock.json yarn.lock", {}, "npm ci"],
  ["pnpm's", "package.json pnpm-lock.yaml", {}, "pnpm install --frozen-lockfile"],
  ["bun's", "package.json bun.lock", {}, "bun install --frozen-lockfile"],
  ["bun's older one", "package.json bun.lockb", {}, "bun install --frozen-lockfile"],
  [
    "yarn 1's",
    "package.json yarn.lock",
    { yarnLock: "# yarn lockfile v1\n" },
    "yarn install --frozen-lockfile --non-interactive",
  ],
  ["a later yarn's", "package.json yarn.lock", { yarnLock: "__metadata:\n  version: 8\n" }, "yarn install --immutable"],
  ["Deno's", "deno.json deno.lock", {}, "deno install --frozen"],
  ["Deno's with a deno.jsonc and a package.json", "deno.jsonc deno.lock package.json", {}, "deno install --frozen"],
  ["a deno.json without a lock file", "deno.json", {}, undefined],
  ["Deno's without a deno.json", "deno.lock package.json", {}, "npm install"],
  ["Deno's beside pnpm's", "deno.json deno.lock package.json pnpm-lock.yaml", {}, "pnpm install --frozen-lockfile"],
  ["packageManager alone", "package.json", { packageManager: "pnpm@9.1.0" }, "pnpm install"],
  [
    "packageManager and two lock files",
    "package.json pnpm-lock.yaml yarn.lock",
    { packageManager: "pnpm@9.1.0+sha512.abc" },
    "pnpm install --frozen-lockfile",
  ],
  [
    "packageManager beside npm's lock file",
    "package.json package-lock.json",
    { packageManager: "pnpm@9.1.0" },
    "npm ci",
  ],
];
for (const [title, names, more, expect] of table) {
  test(`who installs: ${title}`, async () => {
    const manager = await choose(names, more);
    const words = manager?.args.filter((word) => !/^--(?:no-[afup]|config)/.test(word)) ?? [];
    assert.is(manager && [manager.name, ...words].join(" "), expect);
  });
}

const refused: [names: string, packageManager: string | undefined, why: RegExp][] = [
  [
    "package.json pnpm-lock.yaml bun.lock",
    undefined,
    /lock files of \w+ and of \w+ are here; remove one, or set packageManager/,
  ],
  ["package.json", "vlt@1.0.0", /packageManager "vlt@1.0.0" is not npm, pnpm/],
];
for (const [names, asked, why] of refused)
  test(`who installs cannot be told: ${names}`, async () => {
    await choose(names, asked === undefined ? {} : { packageManager: asked }).then(
      () => assert.unreachable(),
      (error: Error) => assert.match(error.message, why),
    );
  });

test.run();

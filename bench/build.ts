// `build` with nothing to do, beside what it cannot do without: `git fetch` and a start of Node.
// In turns, in one run; medians.
//   npm run bundle && node --import tsx bench/build.ts [ROUNDS] [FILES]
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";

const rounds = Number(process.argv[2] ?? 21);
const files = Number(process.argv[3] ?? 3000);
const folder = await mkdtemp(join(tmpdir(), "bb-"));
const env = {
  PATH: process.env["PATH"] ?? "",
  HOME: folder,
  GIT_CONFIG_GLOBAL: "/dev/null",
  GIT_CONFIG_NOSYSTEM: "1",
};

/** Milliseconds that a command takes. */
function time(argv: string[]): Promise<number> {
  const [file = "", ...args] = argv;
  const started = performance.now();
  return new Promise((done, fail) => {
    const child = spawn(file, args, { env, cwd: folder, stdio: "ignore" });
    child.on("error", fail);
    child.on("exit", (code) => {
      if (code === 0) done(performance.now() - started);
      else fail(new Error(`${argv.join(" ")}: exit code ${code}`));
    });
  });
}

/** Medians of what each of several commands takes, in turns. */
async function compare<Name extends string>(commands: Record<Name, string[]>): Promise<Record<Name, number>> {
  const names = Object.keys(commands) as Name[];
  const times = new Map<Name, number[]>(names.map((name) => [name, []]));
  for (let round = -1; round < rounds; round++) {
    for (const name of names) {
      const ms = await time(commands[name]);
      // the first round warms up
      if (round >= 0) times.get(name)?.push(ms);
    }
  }
  const medians = names.map((name) => [name, median(times.get(name) ?? [])] as const);
  for (const [name, ms] of medians) console.log(`${name.padEnd(44)} ${ms.toFixed(1).padStart(8)} ms`);
  return Object.fromEntries(medians) as Record<Name, number>;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

async function makeSite(name: string, more: Record<string, string>): Promise<string> {
  const work = join(folder, `${name}-work`);
  await git(folder, "init", "--quiet", "--bare", "--initial-branch=main", `${name}.git`);
  await git(folder, "clone", "--quiet", `${name}.git`, `${name}-work`);
  for (let index = 0; index < files; index++) {
    const dir = join(work, `folder${index % 60}`);
    if (index < 60) await mkdir(dir, { recursive: true });
    await writeFile(join(dir, `page${index}.md`), `# Page ${index}\n\n${"Some words. ".repeat(20)}\n`);
  }
  for (const [path, text] of Object.entries(more)) await writeFile(join(work, path), text);
  await git(work, "add", "--all");
  await git(work, "-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "-m", "All");
  await git(work, "push", "--quiet", "origin", "HEAD:main");
  await git(folder, "clone", "--quiet", `${name}.git`, name);
  return join(folder, name);
}

const git = (dir: string, ...args: string[]) => time(["git", "-C", dir, ...args]);

try {
  const bundle = resolve("dist/build.mjs");
  const node = process.execPath;
  const empty = join(folder, "empty.mjs");
  await writeFile(empty, "");
  const site = await makeSite("site", {
    "package.json": '{ "name": "site", "private": true }\n',
    "package-lock.json": '{ "name": "site", "lockfileVersion": 3, "packages": { "": {} } }\n',
  });
  await time([node, bundle, site]);
  console.log(`nothing to do in a repository of ${files} files, ${rounds} rounds, medians`);
  const build = await compare({
    "node on an empty file": [node, empty],
    "git fetch": ["git", "-C", site, "fetch", "--quiet"],
    "build --help": [node, bundle, "--help"],
    build: [node, bundle, site],
    "build --if-changed": [node, bundle, site, "--if-changed"],
  });
  const least = build["git fetch"] + build["node on an empty file"];
  const figure = (name: string, value: number, goal: string) =>
    console.log(`ratio ${name}: ${value.toFixed(2)} (to reach <= ${goal})`);
  figure("build with nothing to do / (git fetch + node)", build.build / least, "2.80");
  figure("build --if-changed / (git fetch + node)", build["build --if-changed"] / least, "2.80");
  figure("build --help / node", build["build --help"] / build["node on an empty file"], "2.20");
} finally {
  await rm(folder, { recursive: true, force: true });
}

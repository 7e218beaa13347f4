// npm run demo:site [-- FOLDER]: the website of the documents, made by Boatyard itself. This checkout is pushed to a forge
// on this machine, hook-server builds it as its build.yml says, and uploads sends the site to FOLDER.
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { cp, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { createTerminal } from "../lib/cli/terminal.ts";
import { deliverAndWait, push, pushPayload, say, title } from "./demo/delivery.ts";
import { freePort, World } from "./demo/world.ts";

const { paint, print } = createTerminal();
const root = fileURLToPath(new URL("../", import.meta.url));
const repository = { full_name: "ada/boatyard", default_branch: "main" };
const end = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => end.abort());

async function main(): Promise<void> {
  let world: World | undefined;
  try {
    world = await World.make(root, end.signal);
    await demo(world, process.argv[2] && resolve(process.argv[2]));
  } catch (error) {
    if (!end.signal.aborted) print(`${paint.red("failed")} ${String(error)}`);
    process.exitCode = 1;
  } finally {
    await world?.end();
  }
}

async function demo(world: World, folder: string | undefined): Promise<void> {
  const { place } = world;
  const out = folder ?? place("www");
  await mkdir(out, { recursive: true });

  title("A forge with this checkout, a server that builds it");
  await mkdir(place("forge/ada"), { recursive: true });
  await world.git(
    "forge/ada",
    "init",
    "--quiet",
    "--bare",
    "--initial-branch=main",
    "boatyard.git",
  );
  await world.git(".", "clone", "--quiet", "forge/ada/boatyard.git", "developer");
  await world.git(".", "clone", "--quiet", "forge/ada/boatyard.git", "server");
  // the packages are here already: the install stage, which fetches them, is left out
  await symlink(join(root, "node_modules"), place("server/node_modules"));
  const script = '#!/bin/sh\nexec build "$@" --skip install\n';
  await writeFile(place("build-site"), script, { mode: 0o755 });
  const secret = randomBytes(32).toString("hex");
  await writeFile(place("hook.secret"), `${secret}\n`, { mode: 0o600 });
  const repo = {
    dir: place("server"),
    secret_file: place("hook.secret"),
    poll: false,
    on: { push: place("build-site") },
  };
  // JSON is YAML, too
  const hooks = { repos: { [repository.full_name]: repo } };
  await writeFile(place("hooks.yml"), JSON.stringify(hooks));
  // where it goes is nothing of the repository's: a file of the server's
  const to = { www: { rsync: `${out}/` } };
  await writeFile(place("server/uploads.yml"), JSON.stringify({ from: "site", to }));
  const url = `http://127.0.0.1:${await freePort()}`;
  const healthy = async () => (await fetch(`${url}/healthz`)).ok;
  const options = ["--config", "hooks.yml", "--state", "state", "--listen", url.slice(7)];
  const server = await world.start("hook-server", options, healthy);

  title("A push: build.yml has the site made, and uploads sends it");
  await copyCheckout(place("developer"));
  const payload = pushPayload(repository, await push(world, "The checkout as it is"));
  await deliverAndWait(world, url, secret, "push", payload);
  const pages = (await readdir(out, { recursive: true })).filter((name) => name.endsWith(".html"));
  say(`${pages.length} pages in ${out}: ${paint.bold(await titleOf(join(out, "index.html")))}`);

  const code = await server.stop();
  if (code !== 0) throw new Error(server.output());
  print(`\n${paint.green("done")}${folder ? `; open ${join(out, "index.html")}` : ""}`);
}

/** The files that git knows, as they are, changes included. */
async function copyCheckout(to: string): Promise<void> {
  const argv = ["-c", "safe.directory=*", "ls-files", "-z"];
  const { stdout } = await promisify(execFile)("git", argv, { cwd: root });
  for (const name of stdout.split("\0").filter(Boolean)) {
    await mkdir(dirname(join(to, name)), { recursive: true });
    await cp(join(root, name), join(to, name), { verbatimSymlinks: true }).catch((error) => {
      // removed, and that not committed
      if (error.code !== "ENOENT") throw error;
    });
  }
}

async function titleOf(file: string): Promise<string> {
  return /<title>(.*?)<\/title>/.exec(await readFile(file, "utf8"))?.[1] ?? "";
}

void main();

// npm run demo:site [-- FOLDER]: the website of the documents, made by Boatyard itself. This checkout is pushed to a forge
// on this machine, hook-server builds it as its build.yml says, and uploads sends the site to FOLDER.
import { execFile } from "node:child_process";
import { cp, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { createTerminal } from "../lib/cli/terminal.ts";
import {
  deliverAndWait,
  makeForge,
  push,
  pushPayload,
  runDemo,
  say,
  secretFile,
  startHookServer,
  title,
} from "./demo/delivery.ts";
import type { World } from "./demo/world.ts";

const { paint, print } = createTerminal();
const root = fileURLToPath(new URL("../", import.meta.url));
const repository = { full_name: "ada/boatyard", default_branch: "main" };

async function demo(world: World): Promise<void> {
  const { place } = world;
  const folder = process.argv[2] && resolve(process.argv[2]);
  const out = folder || place("www");
  await mkdir(out, { recursive: true });

  title("A forge with this checkout, a server that builds it");
  await makeForge(world, "boatyard");
  // the packages are here already: the install stage, which fetches them, is left out
  await symlink(join(root, "node_modules"), place("server/node_modules"));
  const script = '#!/bin/sh\nexec build "$@" --skip install\n';
  await writeFile(place("build-site"), script, { mode: 0o755 });
  const secret = await secretFile(place("hook.secret"));
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
  const { url, server } = await startHookServer(world);

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

void runDemo(root, demo);

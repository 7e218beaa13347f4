// What both demos tell: a forge, a server that builds for it, a push or a release there, and what the server makes of it.
import { randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import process from "node:process";
import { stripVTControlCharacters } from "node:util";
import { createTerminal } from "../../lib/cli/terminal.ts";
import { UsageError } from "../../lib/core/errors.ts";
import { findOnPath } from "../../lib/exec/scripts.ts";
import { freePort, type Running, World } from "./world.ts";

const { paint, print } = createTerminal();

/** Tells a demo in a world of its own, which is gone at its end, also by Ctrl-C. A failure is shown, and exit 1. */
export async function runDemo(root: string, demo: (world: World) => Promise<void>): Promise<void> {
  const end = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => end.abort());
  let world: World | undefined;
  try {
    // the one program that a demo runs and Debian does not have from the start
    if (!(await findOnPath("git")))
      throw new UsageError("the demo needs git: apt-get install git, or your system's like");
    world = await World.make(root, end.signal);
    await demo(world);
  } catch (error) {
    const said = error instanceof UsageError ? error.message : String(error);
    if (!end.signal.aborted) print(`${paint.red("failed")} ${said}`);
    process.exitCode = 1;
  } finally {
    await world?.end();
  }
}

/** A bare repository of Ada's as the forge, and two clones of it: `developer` and `server`. */
export async function makeForge(world: World, name: string): Promise<void> {
  await mkdir(world.place("forge/ada"), { recursive: true });
  const options = ["--quiet", "--bare", "--initial-branch=main"];
  await world.git("forge/ada", "init", ...options, `${name}.git`);
  for (const clone of ["developer", "server"]) await world.git(".", "clone", "--quiet", `forge/ada/${name}.git`, clone);
}

/** Writes a new secret to a file, and returns it. */
export async function secretFile(path: string): Promise<string> {
  const secret = randomBytes(32).toString("hex");
  await writeFile(path, `${secret}\n`, { mode: 0o600 });
  return secret;
}

/** Starts hook-server with the world's `hooks.yml`. */
export async function startHookServer(world: World): Promise<{ url: string; server: Running }> {
  const url = `http://127.0.0.1:${await freePort()}`;
  const healthy = async () => (await fetch(`${url}/healthz`)).ok;
  const options = ["--config", "hooks.yml", "--state", "state", "--listen", url.slice(7)];
  return { url, server: await world.start("hook-server", options, healthy) };
}

export interface Repository {
  full_name: string;
  default_branch: string;
}

export function title(text: string): void {
  print(`\n${paint.cyan("▶")} ${paint.bold(text)}`);
}

export function say(text: string): void {
  print(`  ${text}`);
}

/** Commits all changes in the folder `developer` and pushes them; returns the commit. */
export async function push(world: World, message: string): Promise<string> {
  await world.git("developer", "add", "--all");
  await world.git("developer", "commit", "--quiet", "-m", message);
  await world.git("developer", "push", "--quiet", "origin", "main");
  return await world.git("developer", "rev-parse", "HEAD");
}

/** What the forge tells of a push to main. */
export function pushPayload(repository: Repository, sha: string) {
  const head_commit = { id: sha };
  const before = "0".repeat(40);
  const ref = "refs/heads/main";
  const pusher = { name: "ada" };
  return { ref, before, after: sha, deleted: false, repository, head_commit, pusher };
}

/**
 * Sends a signed delivery to the server at `url`, shows the run's log (of the folder `server`) while it lasts, and waits
 * for its good end.
 * @throws {Error} with its log when it does not succeed.
 */
export async function deliverAndWait(
  world: World,
  url: string,
  secret: string,
  event: "push" | "release",
  payload: object,
): Promise<void> {
  const { status, text } = await world.deliver(`${url}/hook`, secret, event, payload);
  say(`POST /hook, signed, ${event}: ${status} ${text}`);
  const { run: id } = JSON.parse(text) as { run: string };
  let shown = 0;
  const show = async () => {
    const log = await readFile(world.place("server", "logs.txt"), "utf8").catch(() => "");
    const lines = log.split("\n").filter((line) => line.includes(id));
    for (; shown < lines.length; shown++)
      say(paint.dim(stripVTControlCharacters(lines[shown] ?? "").replace(` ${id}`, "")));
  };
  let over = false;
  const log = ["log", "--follow", "--state", "state", id];
  const followed = world.script("hook-server", log).finally(() => (over = true));
  // told below, when all lines are shown
  followed.catch(() => {});
  await world.until("the run ends", async () => {
    await show();
    return over;
  });
  await show();
  await followed;
}

// A push or a release at the demo's forge, and what the server makes of it, shown while it lasts.
import { readFile } from "node:fs/promises";
import { createTerminal } from "../../lib/cli/terminal.ts";
import type { World } from "./world.ts";

const { paint, print } = createTerminal();

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
      say(paint.dim((lines[shown] ?? "").replace(` ${id}`, "")));
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

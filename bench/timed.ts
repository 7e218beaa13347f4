// One command, timed from outside, with the peak of its memory.
import { spawn } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";

export type Timed = {
  code: number | null;
  /** Both streams, as they came. */
  output: string;
  ms: number;
  /** The peak in MB of the resident memory of the process and all it started, together; seen every 20 ms. */
  peak: number;
};

/** Runs a command to its end. */
export async function timed(
  argv: string[],
  options: { cwd?: string; env?: Record<string, string> } = {},
): Promise<Timed> {
  const begin = performance.now();
  const [file = "", ...args] = argv;
  const child = spawn(file, args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let peak = 0;
  const look = async () => {
    peak = Math.max(peak, await treeMemory(String(child.pid)));
  };
  const watch = setInterval(() => void look(), 20);
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
  const code = await new Promise<number | null>((done, fail) => child.on("error", fail).on("close", done));
  clearInterval(watch);
  return { code, output, ms: performance.now() - begin, peak };
}

/** MB; pages that several of the processes share count in each. */
async function treeMemory(pid: string): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  const own = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
  const threads = await readdir(`/proc/${pid}/task`).catch(() => []);
  const lists = await Promise.all(
    threads.map((id) => readFile(`/proc/${pid}/task/${id}/children`, "utf8").catch(() => "")),
  );
  const children = lists.join(" ").split(/\s+/).filter(Boolean);
  const below = await Promise.all(children.map(treeMemory));
  return below.reduce((sum, each) => sum + each, own);
}

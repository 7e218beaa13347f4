// One command, timed from outside, with the peak of its memory.
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";

export type Timed = {
  code: number | null;
  /** Both streams, as they came. */
  output: string;
  ms: number;
  /** The first process's own peak in MB; what it starts is not counted. */
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
  // VmHWM is the kernel's own high-water mark; the last look before the end is close enough
  const look = async () => {
    const status = await readFile(`/proc/${child.pid}/status`, "utf8").catch(() => "");
    peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024);
  };
  const watch = setInterval(() => void look(), 20);
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk) => (output += chunk));
  const code = await new Promise<number | null>((done, fail) =>
    child.on("error", fail).on("close", done),
  );
  clearInterval(watch);
  return { code, output, ms: performance.now() - begin, peak };
}

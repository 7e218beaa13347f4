import { readdir, readFile, stat } from "node:fs/promises";
import process from "node:process";
import { run } from "../exec/exec.ts";

/**
 * Who holds a file open for writing. What is asked is the kernel: a read lease (fcntl(2), F_SETLEASE)
 * is given only on a file that nobody has open for writing, whoever and in whichever container, and
 * also when the writer is a plain `>>` of a shell that knows nothing of locks. Neither Node nor
 * flock(1) can ask for one; perl, which is part of every Debian, can. Where there is no perl, or the
 * file system has no leases, /proc is read instead.
 */
export type Holding = "held" | "free" | "unknown";

// F_SETLEASE is 1024, F_RDLCK is 0, EAGAIN is 11 on every Linux; the lease ends with perl
const askForLeases =
  'for (@ARGV) { my $f; print open($f, "<", $_) ? fcntl($f, 1024, 0) ? "free\\n" : $! == 11 ? "held\\n" : "unknown\\n" : "unknown\\n" }';

/** For each path whether somebody has that file open for writing. */
export async function writersOf(paths: readonly string[]): Promise<Holding[]> {
  if (paths.length === 0) return [];
  const answers = await leases(paths);
  if (!answers.includes("unknown")) return answers;
  const open = await openFiles();
  return Promise.all(
    answers.map(async (answer, index) => {
      if (answer !== "unknown") return answer;
      if (open.writing.has(await identity(paths[index] ?? ""))) return "held";
      // only root sees the files of every process
      return process.getuid?.() === 0 ? "free" : "unknown";
    }),
  );
}

async function leases(paths: readonly string[]): Promise<Holding[]> {
  const { code, stdout } = await run(["perl", "-e", askForLeases, "--", ...paths], {
    check: false,
    timeout: 10_000,
  }).catch(() => ({ code: 127, stdout: "" }));
  const words = stdout.split("\n");
  return paths.map((_, index) =>
    code === 0 ? ((words[index] || "unknown") as Holding) : "unknown",
  );
}

/** Which of the paths some process that we may look into has open, for reading or for writing. */
export async function openAmong(paths: readonly string[]): Promise<Set<string>> {
  const { reading, writing } = paths.length === 0 ? nothing : await openFiles();
  const found = new Set<string>();
  for (const path of paths) {
    const key = await identity(path);
    if (reading.has(key) || writing.has(key)) found.add(path);
  }
  return found;
}

const nothing = { reading: new Set<string>(), writing: new Set<string>() };

async function openFiles(): Promise<typeof nothing> {
  const open = { reading: new Set<string>(), writing: new Set<string>() };
  const pids = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name));
  for (const pid of pids) {
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
    await Promise.all(
      descriptors.map(async (descriptor) => {
        const key = await identity(`/proc/${pid}/fd/${descriptor}`);
        if (key === "") return;
        const info = await readFile(`/proc/${pid}/fdinfo/${descriptor}`, "latin1").catch(() => "");
        // the lowest two bits of the flags, in octal: 0 reads, 1 writes, 2 does both
        const mode = Number.parseInt(/^flags:\s*(\d+)/m.exec(info)?.[1] ?? "2", 8) & 3;
        (mode === 0 ? open.reading : open.writing).add(key);
      }),
    );
  }
  return open;
}

/** Device and inode of a regular file; empty for anything else. */
async function identity(path: string): Promise<string> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() ? `${found.dev}:${found.ino}` : "";
}

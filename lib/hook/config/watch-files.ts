import { type Stats, statSync, watch } from "node:fs";
import { stat } from "node:fs/promises";
import { dirname } from "node:path";

/** The files that a configuration was read from, and what each was like just before. */
export type Stamps = Map<string, string>;

/** Note what a file is like; to be called before it is read, so that no later change can be missed. */
export function stamp(stamps: Stamps, file: string): void {
  let found: Stats | undefined;
  try {
    found = statSync(file);
  } catch {
    // it is not there, or cannot be read: that may change too
  }
  stamps.set(file, describe(found));
}

/** An editor replaces a file or writes into it; a secret that everybody can read gets another mode or owner. */
function describe(found: Stats | undefined): string {
  return found ? [found.ino, found.mtimeMs, found.size, found.mode, found.uid, found.gid].join(" ") : "none";
}

/** Network file systems, links, and folders that were replaced send no events: those wait for the next look. */
const lookInterval = 1000;
/** A file is written in several steps: one look for all of them, so many ms after the first. */
const settleDelay = 30;

/**
 * Calls `changed` when one of the files is no longer what it was when it was read; `stamps` tells which files, and
 * what they were. Returns how to stop.
 */
export function watchFiles(stamps: () => Stamps, changed: () => Promise<void>): () => void {
  let busy = false;
  let stopped = false;
  let soon: NodeJS.Timeout | undefined;
  const look = async () => {
    if (busy) return;
    busy = true;
    try {
      if (!(await differ(stamps()))) return;
      await changed();
      stopEvents();
      // other files may be named now, and a folder may be another one
      if (!stopped) stopEvents = watchFolders(stamps().keys(), lookSoon);
    } finally {
      busy = false;
    }
  };
  const lookSoon = () => {
    soon ??= setTimeout(() => {
      soon = undefined;
      void look();
    }, settleDelay);
  };
  let stopEvents = watchFolders(stamps().keys(), lookSoon);
  const timer = setInterval(() => void look(), lookInterval);
  void look();
  return () => {
    stopped = true;
    clearInterval(timer);
    clearTimeout(soon);
    stopEvents();
  };
}

async function differ(stamps: Stamps): Promise<boolean> {
  const changes = [...stamps].map(async ([file, before]) => {
    const found = await stat(file).catch(() => undefined);
    return describe(found) !== before;
  });
  return (await Promise.all(changes)).includes(true);
}

/** The kernel's events about the folders of some files: a file that is replaced is another one. */
function watchFolders(files: Iterable<string>, onEvent: () => void): () => void {
  const watchers = [...new Set([...files].map((file) => dirname(file)))].flatMap((folder) => {
    try {
      const watcher = watch(folder, { persistent: false }, onEvent);
      watcher.on("error", () => watcher.close());
      return [watcher];
    } catch {
      // no folder, or the kernel watches no more of them (ENOSPC, EMFILE): there is the look at every interval
      return [];
    }
  });
  return () => {
    for (const watcher of watchers) watcher.close();
  };
}

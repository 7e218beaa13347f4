import { stat } from "node:fs/promises";

const lookEvery = 1000;

/** Calls `changed` when one of the files is another than before: by its inode, time or size, so that an editor may replace it. */
export function watchFiles(
  files: () => readonly string[],
  changed: () => Promise<void>,
): () => void {
  let last: string | undefined;
  let busy = false;
  const look = async () => {
    if (busy) return;
    busy = true;
    try {
      const now = (
        await Promise.all(
          files().map(async (file) => {
            const found = await stat(file).catch(() => undefined);
            return `${file} ${found?.ino} ${found?.mtimeMs} ${found?.size}`;
          }),
        )
      ).join("\n");
      if (last !== undefined && now !== last) await changed();
      last = now;
    } finally {
      busy = false;
    }
  };
  const timer = setInterval(() => void look(), lookEvery);
  void look();
  return () => clearInterval(timer);
}

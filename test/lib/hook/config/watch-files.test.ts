import { readFileSync } from "node:fs";
import { chmod, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { type Stamps, stamp, watchFiles } from "../../../../lib/hook/config/watch-files.ts";
import { tempDir } from "../../../helpers/tmp.ts";
import { waitFor } from "../../../helpers/wait.ts";

/** Watches a file that names another one, as a configuration names its secret; keeps what was read each time. */
async function watched(work: (dir: string, read: () => string[]) => Promise<void>): Promise<void> {
  const dir = join(tempDir(), "conf");
  await mkdir(dir);
  await writeFile(join(dir, "config"), "secret");
  await writeFile(join(dir, "secret"), "one");
  const texts: string[] = [];
  let stamps: Stamps = new Map();
  const text = (name: string) => {
    stamp(stamps, join(dir, name));
    try {
      return readFileSync(join(dir, name), "utf8");
    } catch {
      return "";
    }
  };
  const read = () => {
    stamps = new Map();
    texts.push(text(text("config")));
  };
  read();
  const stop = watchFiles(
    () => stamps,
    async () => read(),
  );
  try {
    await work(dir, () => texts);
  } finally {
    stop();
  }
}

test("a file that is replaced or written into is read again, once; others in its folder are not", async () => {
  await watched(async (dir, read) => {
    const replace = async (name: string, text: string) => {
      await writeFile(join(dir, "tmp"), text);
      await rename(join(dir, "tmp"), join(dir, name));
    };
    // in one step: a file that is emptied first may be read while it is empty
    await writeFile(join(dir, "secret"), "second", { flag: "r+" });
    await waitFor(() => read().length === 2);
    await replace("secret", "three");
    await waitFor(() => read().length === 3);
    await writeFile(join(dir, "other"), "x");
    // a name that is new to the watch is no second change
    await replace("config", "other");
    await waitFor(() => read().length === 4);
    await writeFile(join(dir, "secret"), "of no interest any more");
    await sleep(1100);
    assert.equal(read(), ["one", "second", "three", "x"]);
    await chmod(join(dir, "other"), 0o600);
    await waitFor(() => read().length === 5);
  });
});

test("what was changed between the reading and the watch is seen", async () => {
  const file = join(tempDir(), "config");
  await writeFile(file, "one");
  const stamps: Stamps = new Map();
  stamp(stamps, file);
  await writeFile(file, "three");
  let changes = 0;
  const stop = watchFiles(
    () => stamps,
    async () => {
      changes += 1;
      stamp(stamps, file);
    },
  );
  await waitFor(() => changes === 1);
  stop();
});

test("a file that is missing, and a folder that vanishes and comes back, are waited for", async () => {
  await watched(async (dir, read) => {
    await writeFile(join(dir, "config"), "missing");
    await waitFor(() => read().length >= 2);
    await writeFile(join(dir, "missing"), "here");
    await waitFor(() => read().at(-1) === "here");
    await rm(dir, { recursive: true });
    await waitFor(() => read().at(-1) === "");
    await mkdir(dir);
    await writeFile(join(dir, "config"), "secret");
    await writeFile(join(dir, "secret"), "again");
    await waitFor(() => read().at(-1) === "again");
    await writeFile(join(dir, "secret"), "and again");
    await waitFor(() => read().at(-1) === "and again");
  });
});

test.run();

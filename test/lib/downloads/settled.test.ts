import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { bootId } from "../../../lib/core/id.ts";
import { isIdle, makePlan } from "../../../lib/downloads/plan.ts";
import { readWanted } from "../../../lib/downloads/read.ts";
import { settledFiles } from "../../../lib/downloads/settled.ts";
import { readStore } from "../../../lib/downloads/store.ts";
import { tempDir } from "../../helpers/tmp.ts";

const sha = "a".repeat(64);
const time = "2026-11-20T10:00:00Z";
const host = "https://host.example";
const recordLine = (url: string, path: string, size = 3, version = "-") =>
  `${sha} ${size} ${time} ${version} "tag" ${url} ${path}`;

/** A folder with the given texts and, under downloads/, files of three bytes. */
function site(
  manifest: string[],
  record: string[],
  files: string[],
): { dir: string; root: string } {
  const dir = tempDir("settled-");
  const root = join(dir, "downloads");
  mkdirSync(join(root, "img"), { recursive: true });
  writeFileSync(join(dir, "manifest.txt"), manifest.join("\n"));
  writeFileSync(join(root, "saved.txt"), record.join("\n"));
  for (const file of files) writeFileSync(join(root, file), "abc");
  return { dir, root };
}

const options = { check: false, force: false, prune: false } as Parameters<typeof makePlan>[2];

/** What the plan says of the same folder. */
async function idleByPlan(dir: string, root: string): Promise<boolean> {
  try {
    const wanted = await readWanted(dir, undefined, root);
    return wanted !== undefined && isIdle(makePlan(wanted, readStore(root), options), options);
  } catch {
    return false;
  }
}

const listed = ["# pictures", `${host}/a.bin a.bin`, `${host}/b?x=1#2 img/b c.bin`, "", ""];
const recorded = [
  "# What downloads saved",
  recordLine(`${host}/a.bin`, "a.bin"),
  recordLine(`${host}/b?x=1`, "img/b c.bin", 3, "2"),
  recordLine(`${host}/unlisted`, "unlisted"),
  "",
];
const there = ["a.bin", "img/b c.bin"];

test("a manifest whose every line is recorded and here is settled", async () => {
  const { dir, root } = site(listed, recorded, there);
  assert.is(settledFiles(dir, root), 2);
  assert.ok(await idleByPlan(dir, root));
});

const unsettled: [string, () => ReturnType<typeof site>][] = [
  ["a file that is gone", () => site(listed, recorded, ["a.bin"])],
  [
    "a file of another size",
    () => site(listed, [recordLine(`${host}/a.bin`, "a.bin", 4), ...recorded.slice(2)], there),
  ],
  [
    "a link in a file's place",
    () => {
      const made = site(listed, recorded, ["img/b c.bin"]);
      symlinkSync("img/b c.bin", join(made.root, "a.bin"));
      return made;
    },
  ],
  [
    "a link in a folder's place",
    () => {
      const made = site(listed, recorded, ["a.bin"]);
      rmSync(join(made.root, "img"), { recursive: true });
      mkdirSync(join(made.root, "other"));
      writeFileSync(join(made.root, "other/b c.bin"), "abc");
      symlinkSync("other", join(made.root, "img"));
      return made;
    },
  ],
  ["another version", () => site([...listed, `${host}/a.bin#3 a.bin`], recorded, there)],
  ["a new line", () => site([...listed, `${host}/c.bin c.bin`], recorded, there)],
  ["a line twice", () => site([...listed, listed[1] as string], recorded, there)],
  ["a wrong line", () => site([...listed, "nonsense"], recorded, there)],
  ["a damaged record", () => site(listed, [...recorded, "nonsense"], there)],
  ["no record", () => site(listed, [], there)],
  [
    "twins by case",
    () =>
      site(
        [...listed, `${host}/A A.bin`],
        [...recorded, recordLine(`${host}/A`, "A.bin")],
        [...there, "A.bin"],
      ),
  ],
  [
    "a recorded path that no line may name",
    () =>
      site(
        [`${host}/a ../downloads/a.bin`],
        [recordLine(`${host}/a`, "../downloads/a.bin")],
        there,
      ),
  ],
  [
    "a recorded address that no line may name",
    () => site(["ftp://host/a a.bin"], [recordLine("ftp://host/a", "a.bin")], there),
  ],
  [
    "files saved before a restart of the machine",
    () => site(listed, [`# Saved since ${time} in boot another: doubt`, ...recorded], there),
  ],
  [
    "a journal of a killed run",
    () => {
      const made = site(listed, recorded, there);
      writeFileSync(join(made.root, ".saved.journal"), `${recorded[1]}\n`);
      return made;
    },
  ],
  [
    "a line of cloudinary.txt that is not here",
    () => {
      const made = site(listed, recorded, there);
      writeFileSync(
        join(made.dir, "cloudinary.txt"),
        "https://res.cloudinary.com/demo/image/upload\na.png - a.png\n",
      );
      return made;
    },
  ],
];
for (const [what, make] of unsettled) {
  test(`${what} is not settled`, async () => {
    const { dir, root } = make();
    assert.is(settledFiles(dir, root), undefined);
    assert.not.ok(await idleByPlan(dir, root));
  });
}

test("what the glance takes for settled is settled for the plan", async () => {
  // a small generator of its own, so that a failure can be repeated
  let seed = 20_261_121;
  const below = (limit: number) => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % limit;
  };
  const pick = <T>(all: readonly T[]): T => all[below(all.length)] as T;
  const urls = [`${host}/a`, `${host}/b`, "http://u:p@h/a", "s3://b/k", "file:///a", "ftp://h/a"];
  const paths = ["a", "A", "a b", "d/a", "old/a", "saved.txt", "../a", "é", "E\u0301", ".a", "a "];
  const versions = ["-", "-", "-", "2", "sha256-2", "x"];
  const { dir, root } = site([], [], []);
  mkdirSync(join(root, "d"));
  for (const path of ["a", "A", "a b", "d/a", "é", ".a", "a "])
    writeFileSync(join(root, path), "abc");
  let settled = 0;
  for (let round = 0; round < 2000; round++) {
    const record = below(2) ? [`# Saved since ${time} in boot ${bootId()}: doubt`] : ["# record"];
    const manifest = below(2) ? ["# list", "", ""] : [];
    for (let count = below(4); count > 0; count--) {
      const [url, path, version] = [pick(urls), pick(paths), pick(versions)];
      record.push(recordLine(url.replace("u:p@", ""), path, pick([3, 3, 3, 4]), version));
      if (below(8) > 0)
        manifest.push(`${url}${below(12) > 0 && version === "-" ? "" : `#${version}`} ${path}`);
    }
    if (below(12) === 0) manifest.push(manifest.at(-1) ?? "");
    if (below(20) === 0) record.push(pick(["x", " ", recordLine(`${host}/z`, "z").slice(1)]));
    writeFileSync(join(dir, "manifest.txt"), manifest.join(pick(["\n", "\n", "\n", "\r\n"])));
    writeFileSync(join(root, "saved.txt"), record.join("\n"));
    const files = settledFiles(dir, root);
    if (files === undefined) continue;
    settled += 1;
    assert.ok(await idleByPlan(dir, root), `${manifest.join("\n")}\n---\n${record.join("\n")}`);
    assert.is((await readWanted(dir, undefined, root))?.entries.length, files);
  }
  assert.ok(settled > 200, `${settled} settled ones are enough to say something`);
});

test.run();

import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Refused, UsageError } from "../../../lib/core/errors.ts";
import { readLists } from "../../../lib/downloads/lists.ts";
import { planDownloads } from "../../../lib/downloads/plan.ts";
import { Record } from "../../../lib/downloads/record.ts";
import { tempDir } from "../../helpers/tmp.ts";

const sha = "a".repeat(64);
const time = "2026-11-20T10:00:00Z";
const host = "https://host.example";
const recordLine = (url: string, path: string, size = 3, version = "-") =>
  `${sha} ${size} ${time} ${version} "tag" ${url} ${path}`;

/** A folder with the given texts and, under downloads/, files of three bytes. */
function site(manifest: string[], record: string[], files: string[]): { dir: string; root: string } {
  const dir = tempDir("plan-");
  const root = join(dir, "downloads");
  mkdirSync(join(root, "img"), { recursive: true });
  writeFileSync(join(dir, "manifest.txt"), manifest.join("\n"));
  writeFileSync(join(root, "saved.txt"), record.join("\n"));
  for (const file of files) writeFileSync(join(root, file), "abc");
  return { dir, root };
}

/** Whether the plan of a folder keeps all that is listed as it is, and its record, too. */
async function nothingToDo(dir: string, root: string): Promise<boolean> {
  try {
    const wanted = await readLists(dir, root);
    const record = await Record.read(root);
    assert.ok(wanted);
    const { steps } = planDownloads(wanted, record, { check: false, force: false });
    return record.wrong.length === 0 && steps.length === 0;
  } catch (error) {
    if (error instanceof UsageError || error instanceof Refused) return false;
    throw error;
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

test("there is nothing to do when every line of the manifest is recorded and its file is there", async () => {
  const { dir, root } = site(listed, recorded, there);
  assert.ok(await nothingToDo(dir, root));
});

const somethingToDo: [string, () => ReturnType<typeof site>][] = [
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
    () => site([...listed, `${host}/A A.bin`], [...recorded, recordLine(`${host}/A`, "A.bin")], [...there, "A.bin"]),
  ],
  [
    "a recorded path that no line may name",
    () => site([`${host}/a ../downloads/a.bin`], [recordLine(`${host}/a`, "../downloads/a.bin")], there),
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
    "a line of cloudinary.txt that is not here",
    () => {
      const made = site(listed, recorded, there);
      writeFileSync(join(made.dir, "cloudinary.txt"), "https://res.cloudinary.com/demo/image/upload\na.png - a.png\n");
      return made;
    },
  ],
];
for (const [what, make] of somethingToDo) {
  test(`there is something to do for ${what}`, async () => {
    const { dir, root } = make();
    assert.not.ok(await nothingToDo(dir, root));
  });
}

test("a line asks for more than a look when the user does", async () => {
  const { dir, root } = site(listed, recorded, there);
  const actions = async (options: { check: boolean; force: boolean }) => {
    const wanted = await readLists(dir, root);
    assert.ok(wanted);
    const { steps, unlisted } = planDownloads(wanted, await Record.read(root), options);
    assert.equal(unlisted, ["unlisted"]);
    return steps.map(({ action }) => action);
  };
  assert.equal(await actions({ check: true, force: false }), ["check", "check"]);
  assert.equal(await actions({ check: true, force: true }), ["fetch", "fetch"]);
});

test.run();

// Items below a root of their own: looked at, made, taken back.
import { chmod, lstat, mkdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { account, data, file, folder, group, type Item, link } from "../../../lib/items/items.ts";
import { needsCommand, needsRoot, testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";

const refusal = async (item: Item, root: string) =>
  await item.look(root).then(
    (state) => state,
    (error: unknown) => (error as Error).message,
  );
const mode = async (path: string) => ((await lstat(path)).mode & 0o7777).toString(8);

/** Made once: ready from then on; taken back: as if it had never been there. */
async function thereAndBack(item: Item, root: string): Promise<void> {
  assert.is(await item.look(root), "make");
  await item.make(root);
  assert.is(await item.look(root), "ready");
  await item.make(root);
  assert.is(await item.look(root), "ready");
  assert.ok(await item.back?.isThere(root));
  await item.back?.remove(root);
  assert.not.ok(await item.back?.isThere(root));
  await item.back?.remove(root);
  assert.is(await item.look(root), "make");
}

test("a file is written whole, again where it differs, and a person's never", async () => {
  const root = tempDir("root-");
  const unit = file({ path: "/etc/x/unit", text: "new\n", why: "" });
  await thereAndBack(unit, root);
  const path = join(root, "etc/x/unit");
  await writeFile(path, "old\n");
  assert.is(await unit.look(root), "replace");
  const own = file({ path: "/etc/x/unit", text: "new\n", once: true, why: "" });
  assert.is(await own.look(root), "ready");
  assert.ok(own.back?.data);
  assert.not.ok(data(own, false).back?.data);
  // as a setup that was killed may leave it
  await writeFile(path, "");
  assert.is(await own.look(root), "make");
  const secret = file({ path: "/etc/x/secret", mode: 0o600, once: true, text: () => `${Math.random()}\n`, why: "" });
  await secret.make(root);
  const text = await readFile(join(root, "etc/x/secret"), "utf8");
  await writeFile(join(root, "etc/x/secret"), text, { mode: 0o644 });
  await chmod(join(root, "etc/x/secret"), 0o644);
  assert.is(await secret.look(root), "fix");
  await secret.make(root);
  assert.is(
    `${await mode(join(root, "etc/x/secret"))} ${await readFile(join(root, "etc/x/secret"), "utf8")}`,
    `600 ${text}`,
  );
  await rm(path);
  await mkdir(path);
  assert.match(await refusal(own, root), "etc/x/unit is there and is a folder; move it away");
});

test("a link is ours, or nobody's: another's is not touched", async () => {
  const root = tempDir("root-");
  const item = link({ path: "/usr/local/bin/build", to: "/usr/local/lib/boatyard/build.mjs", why: "" });
  await thereAndBack(item, root);
  const path = join(root, "usr/local/bin/build");
  await symlink("/opt/boatyard/build.mjs", path);
  assert.is(await item.look(root), "replace");
  await item.make(root);
  assert.is(await readlink(path), "/usr/local/lib/boatyard/build.mjs");
  await rm(path);
  await symlink("/opt/other/build", path);
  assert.match(await refusal(item, root), "is there and is not a link to build.mjs; move it away");
  assert.not.ok(await item.back?.isThere(root));
  const both = group({ what: "links", why: "", path: "/usr/local/bin" }, [
    link({ path: "/usr/local/bin/a", to: "/x/a", why: "" }),
    link({ path: "/usr/local/bin/b", to: "/x/b", why: "" }),
  ]);
  await thereAndBack(both, root);
  await symlink("/x/a", join(root, "usr/local/bin/a"));
  assert.is(await both.look(root), "make", "one of two is there");
});

test("a link that leads out of the root is refused, for what is read, written and removed", async () => {
  const root = tempDir("root-");
  const outside = tempDir("outside-");
  await writeFile(join(outside, "x"), "theirs\n");
  await symlink(outside, join(root, "etc"));
  const item = file({ path: "/etc/x", text: "ours\n", why: "" });
  for (const attempt of [() => item.look(root), () => item.make(root), () => item.back?.remove(root)])
    assert.match(
      await Promise.resolve(attempt()).then(String, (error: unknown) => (error as Error).message),
      /leads out of .* through a link/,
    );
  assert.is(await readFile(join(outside, "x"), "utf8"), "theirs\n");
});

testUnless(test, needsRoot ?? needsCommand("systemd-tmpfiles"))(
  "a folder has its mode and owner, is mended, and goes when it is empty, or with all that is in it",
  async () => {
    const root = tempDir("root-");
    const item = folder({ path: "/etc/boatyard", mode: 0o711, why: "" });
    await thereAndBack(item, root);
    await item.make(root);
    const path = join(root, "etc/boatyard");
    assert.is(await mode(path), "711");
    await chmod(path, 0o777);
    assert.is(await item.look(root), "fix");
    await item.make(root);
    assert.is(await mode(path), "711");
    await writeFile(join(path, "kept"), "a person's\n");
    await item.back?.remove(root);
    assert.is(await readFile(join(path, "kept"), "utf8"), "a person's\n");
    const whole = folder({ path: "/etc/boatyard", holds: "data", why: "" });
    assert.ok(whole.back?.data);
    await whole.back?.remove(root);
    assert.not.ok(await whole.back?.isThere(root));
    // systemd-tmpfiles would take the link for done
    await symlink("/tmp", path);
    assert.match(await refusal(item, root), "etc/boatyard is there and is not a folder; move it away");
  },
);

testUnless(test, needsRoot ?? needsCommand("systemd-sysusers"))(
  "an account and its home are made below another root, and go from there; a group's name is refused",
  async () => {
    const root = tempDir("root-");
    const user = account({ name: "site", home: "/home/site", purpose: "ada/site", shell: "/bin/bash", why: "" });
    const home = folder({ path: "/home/site", mode: 0o700, owner: "site", holds: "data", why: "" });
    await thereAndBack(user, root);
    await user.make(root);
    await thereAndBack(home, root);
    await home.make(root);
    const line = (await readFile(join(root, "etc/passwd"), "utf8"))
      .split("\n")
      .find((each) => each.startsWith("site:"));
    assert.match(line ?? "", /^site:[^:]*:\d+:\d+:Boatyard ada\/site:\/home\/site:\/bin\/bash$/);
    assert.is((await lstat(join(root, "home/site"))).uid, Number(line?.split(":")[2]));
    // killed before it has written the last of its files
    for (const name of ["shadow", "gshadow"]) {
      const path = join(root, "etc", name);
      await writeFile(path, `root:*::\n${(await readFile(path, "utf8")).replace(/^site:.*\n/m, "")}`);
      assert.is(await user.look(root), "fix");
      await user.make(root);
      assert.match(await readFile(path, "utf8"), /^site:/m);
    }
    await user.back?.remove(root);
    await writeFile(join(root, "etc/group"), "site:x:700:ada\n");
    assert.match(await refusal(user, root), "there is a group site, but no account of that name");
  },
);

test.run();

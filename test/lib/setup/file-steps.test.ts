// What setup writes into homes, whose users may have put links there.
import { chown, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { file } from "../../../lib/setup/file-steps.ts";
import { needsRoot, testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { withUser } from "../../helpers/users.ts";

testUnless(test, needsRoot)(
  "a link in a home leads root to nothing that is closed to the home's user",
  async () => {
    await withUser(async (user) => {
      const closed = join(tempDir(), "closed");
      await mkdir(closed, { mode: 0o700 });
      const text = "Host *\n";
      await writeFile(join(closed, "config"), text, { mode: 0o600 });
      await symlink(closed, join(user.home, ".ssh"));
      const path = join(user.home, ".ssh/config");
      const options = { path, mode: 0o600, owner: user.name, asOwner: true, why: "" };
      assert.is(await file({ ...options, text }).look("/"), "make", "it was not read");
      let failed = false;
      await file({ ...options, text: "Host other\n" })
        .perform("/")
        .catch(() => {
          failed = true;
        });
      assert.ok(failed, "it was not written");
      assert.is(await readFile(join(closed, "config"), "utf8"), text);
      // where the user may write it is done
      await mkdir(join(user.home, "own"));
      await chown(join(user.home, "own"), user.uid, user.gid);
      const own = file({ ...options, path: join(user.home, "own/config"), text });
      await own.perform("/");
      assert.is(await own.look("/"), "ready");
    });
  },
);

test.run();

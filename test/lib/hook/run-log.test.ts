import { writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createMask } from "../../../lib/core/mask.ts";
import { sendLog } from "../../../lib/hook/run-log.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("a secret is masked wherever in a line without an end it stands", async () => {
  const secret = "planted-5ecret-of-the-forge";
  const path = join(tempDir(), "log");
  // wherever such a line is cut to keep memory bounded
  const gap = 1024;
  const line = `${secret}${"x".repeat(gap - secret.length)}`.repeat(400);
  for (let shift = 0; shift < gap; shift += 16) {
    await writeFile(path, `${"y".repeat(shift)}${line}`);
    const response = Object.assign(new PassThrough(), { writeHead() {} });
    const shown = text(response);
    await sendLog(response as unknown as ServerResponse, path, {
      mask: createMask([secret]),
      growing: false,
    });
    assert.not((await shown).includes("forge"), `shifted by ${shift}`);
  }
});

test.run();

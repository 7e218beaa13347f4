import { test } from "uvu";
import * as assert from "uvu/assert";
import { readUploadsConfig } from "../../../lib/uploads/config.ts";
import { root } from "../../helpers/runtime.ts";

test("templates/uploads.yml shows every kind of target and can be read as it is", async () => {
  const config = await readUploadsConfig(`${root}templates/uploads.yml`, "/srv/site");
  assert.is(config.from, "/srv/site/upload");
  assert.equal(
    config.targets.map(({ name, kind }) => `${name} ${kind}`),
    ["web rsync", "local rsync", "cdn s3", "pages git"],
  );
  const cdn = config.targets[2];
  if (cdn?.kind !== "s3") assert.unreachable("cdn is no S3 target");
  else {
    assert.equal(cdn.address, { bucket: "bucket", prefix: "prefix/" });
    assert.equal(cdn.cache[0], ["*.html", "max-age=60"]);
    assert.is(cdn.pathStyle, true);
  }
});

test.run();

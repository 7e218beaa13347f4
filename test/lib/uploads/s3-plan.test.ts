import { test } from "uvu";
import * as assert from "uvu/assert";
import type { S3Target } from "../../../lib/uploads/config.ts";
import type { LocalFile } from "../../../lib/uploads/folder.ts";
import { contentTypes, headerLine, headersFor } from "../../../lib/uploads/headers.ts";
import { inOrder, isSame, planTarget } from "../../../lib/uploads/s3-plan.ts";
import { openPending, openRecord, openState } from "../../../lib/uploads/state.ts";
import { tempDir } from "../../helpers/tmp.ts";

const target: S3Target = {
  ...{ kind: "s3", name: "cdn", delete: false, jobs: 4, region: undefined, endpoint: undefined },
  ...{ pathStyle: undefined, profile: undefined, acl: undefined },
  address: { bucket: "b", prefix: "p/" },
  cache: [
    ["*.html", "max-age=60"],
    ["assets/**", "max-age=31536000"],
  ],
  types: [["*.geo", "application/geo+json"]],
};

const typeOf = await contentTypes();
const file = (path: string, size = 1): LocalFile => ({
  ...{ path, file: `/x/${path}`, size, executable: false, stamp: "1 1 1 1" },
});
const object = (size: number, etag: string) => ({ key: "p/a", size, etag });
const recorded = (etag: string, sha256: string, headers = "h") => ({ etag, sha256, headers });

/** The plan for one file. */
function planOf(
  local: LocalFile,
  there: ReturnType<typeof object> | undefined,
  entry: ReturnType<typeof recorded> | undefined,
) {
  return planTarget(target, [local], there ? [there] : [], new Map(entry && [[local.path, entry]]), typeOf);
}
const line = headerLine(headersFor(target, typeOf)("a"));
const looks: [string, Parameters<typeof planOf>, string][] = [
  ["nothing there", [file("a"), undefined, recorded("e", "s", line)], "new"],
  ["another size", [file("a", 2), object(1, "e"), recorded("e", "s", line)], "replace"],
  ["other headers than we sent", [file("a"), object(1, "e"), recorded("e", "s", "x")], "headers"],
  ["ours, as we sent it", [file("a"), object(1, "e"), recorded("e", "s", line)], "compare"],
  ["another hand's", [file("a"), object(1, "f"), recorded("e", "s", "x")], "compare"],
  ["no record", [file("a"), object(1, "e"), undefined], "compare"],
];
for (const [what, input, expected] of looks) {
  test(`a file is judged without reading it: ${what}`, () => {
    const [send] = planOf(...input).sends;
    assert.is(send?.compare ? "compare" : send?.action, expected);
    assert.is(send?.compare, expected === "compare" ? input[1] : undefined);
  });
}

test("content is the same by its ETag, or by our record while the ETag is the one we were given", () => {
  const content = { etag: "md5", sha256: "s" };
  assert.ok(isSame(content, object(1, "md5"), undefined));
  assert.ok(isSame(content, object(1, "opaque"), recorded("opaque", "s")));
  assert.not(isSame(content, object(1, "opaque"), recorded("opaque", "other")));
  assert.not(isSame(content, object(1, "changed"), recorded("opaque", "s")));
  assert.not(isSame(content, object(1, "opaque"), undefined));
});

test("headers follow the first pattern that fits", () => {
  const headers = headersFor(target, typeOf);
  assert.is(headerLine(headers("a/b.html")), "text/html; charset=utf-8 | max-age=60 | ");
  assert.is(headerLine(headers("assets/x.html")), "text/html; charset=utf-8 | max-age=60 | ");
  assert.is(headers("assets/x/y.js").cacheControl, "max-age=31536000");
  assert.is(headers("map.geo").contentType, "application/geo+json");
  assert.is(headers("what.is.this").contentType, "application/octet-stream");
  assert.is(headers("docs/html").contentType, "application/octet-stream", "a name is not an extension");
  assert.is(headers("app.TGZ").contentType, "application/gzip");
});

test("pages, feeds and a release's VERSION come after what they name; large files begin first", () => {
  const headers = headersFor(target, typeOf);
  const paths: [string, number][] = [
    ["index.html", 9],
    ["feed.xml", 3],
    ["app/VERSION", 2],
    ["app/VERSION.sig", 1],
    ["app/app-1.tar.gz", 900],
    ["zz.css", 5],
    ["video.mp4", 1000],
  ];
  const sends = paths.map(([path, size]) => ({ file: file(path, size), headers: headers(path) }));
  const { assets, pages } = inOrder(sends);
  const names = (list: typeof sends) => list.map((each) => each.file.path);
  assert.equal(names(assets), ["video.mp4", "app/app-1.tar.gz", "zz.css"]);
  assert.equal(names(pages), ["index.html", "feed.xml", "app/VERSION", "app/VERSION.sig"]);
});

test("stray keys are those under the prefix without a file; folder markers stay", () => {
  const listing = ["p/a", "p/b", "p/dir/", "p/dir/c"].map((key) => ({
    ...{ key, size: key.endsWith("/") ? 0 : 1, etag: "e" },
  }));
  const strayOf = (deletes: boolean) =>
    planTarget({ ...target, delete: deletes }, [file("a")], listing, new Map(), typeOf).stray;
  assert.equal(strayOf(true), ["b", "dir/c"]);
  assert.equal(strayOf(false), []);
});

test("what is remembered of a target is its own, whatever the targets are called", async () => {
  const dir = tempDir();
  const file: LocalFile = { path: "a", file: "/a", size: 1, executable: false, stamp: "1 2 3 4" };
  const state = await openState(dir);
  state.learn("a", { etag: "e", sha256: "s" }, file.stamp);
  await state.save([file]);
  const entry = { etag: "e", sha256: "s", headers: "" };
  const pendingOf = (id: string) => ({ id, since: 1, headers: "h" });
  for (const name of ["hashes", "cdn", "cdn.pending"]) {
    const record = await openRecord(state, name, `s3://${name}`);
    record.entries.set("a", entry);
    await record.save();
    await (await openPending(state, name)).set("a", pendingOf(name));
  }
  const again = await openState(dir);
  assert.equal(again.known(file), { etag: "e", sha256: "s" });
  for (const name of ["hashes", "cdn", "cdn.pending"]) {
    assert.equal({ ...(await openRecord(again, name, `s3://${name}`)).entries.get("a") }, entry);
    assert.equal({ ...(await openPending(again, name)).uploads.get("a") }, pendingOf(name));
  }
});

test.run();

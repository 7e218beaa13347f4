// A checkout that uploads to a place of its own in a test's bucket.
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFiles } from "./repos.ts";
import { type RunOptions, runScript } from "./run.ts";
import { s3, s3Env, type TestBucket } from "./s3.ts";
import { tempDir } from "./tmp.ts";

const home = tempDir();
let sites = 0;

/** A checkout with an upload folder and an uploads.yml, and a place of its own in the bucket. */
export async function makeSite(
  bucket: TestBucket,
  files: Record<string, string | Uint8Array>,
  { endpoint = s3.url, more = "" } = {},
) {
  const dir = tempDir();
  const prefix = `site-${++sites}`;
  await mkdir(join(dir, "upload"));
  await writeFiles(join(dir, "upload"), files);
  await writeFile(
    join(dir, "uploads.yml"),
    `to:\n  cdn: { s3: "s3://${bucket.name}/${prefix}", endpoint: "${endpoint}"${more} }\n`,
  );
  return {
    dir,
    prefix,
    file: (name: string) => join(dir, "upload", name),
    uploads: (args: string[] = [], options: RunOptions = {}) =>
      runScript("uploads", [dir, ...args], {
        ...options,
        env: { ...s3Env(home), ...options.env },
        timeout: 60_000,
      }),
    /** Path → content there. */
    async there() {
      const found: Record<string, string> = {};
      for (const key of (await bucket.list(`${prefix}/`)).keys())
        found[key.slice(prefix.length + 1)] = (await bucket.get(key)).toString();
      return found;
    },
  };
}

import { delimiter } from "node:path";
import process from "node:process";

/** Where commands are looked for when nobody says: env -i, some containers. */
const usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * PATH as children get it. Deno (2.9) puts a folder before it, in which `node` is Deno itself: a build's
 * npm and scripts must get the real one, as they do when they are started by hand.
 */
export function searchPath(): string {
  const folders = (process.env.PATH ?? "").split(delimiter);
  const own = folders.filter((folder) => folder !== "" && !folder.endsWith("/node_compat_bin"));
  return own.length > 0 ? own.join(delimiter) : usual;
}

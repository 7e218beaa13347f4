// Whether cgroups can be made here, as a server would that is started by hand.
import { existsSync, mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

const read = (file: string) => (existsSync(file) ? readFileSync(file, "utf8") : "");
const mount = / (\S+) \S+ - cgroup2 /.exec(/^.* - cgroup2 .*$/m.exec(read("/proc/self/mountinfo"))?.[0] ?? "")?.[1];
const own = /^0::(\/.*)$/m.exec(read("/proc/self/cgroup"))?.[1];

/** Why there can be none; undefined when there can. */
export const noCgroups: string | undefined = (() => {
  if (mount === undefined || own === undefined || own.startsWith("/..")) return "there is no cgroup v2 here";
  const folder = join(mount, own, `test-${process.pid}`);
  try {
    mkdirSync(folder);
    const canKill = existsSync(join(folder, "cgroup.kill"));
    rmdirSync(folder);
    return canKill ? undefined : "the kernel cannot end a cgroup";
  } catch {
    return "cgroups cannot be made here";
  }
})();

// A Debian of its own: a root made by debootstrap, and, where systemd-nspawn is installed, booted.
import { existsSync, mkdirSync } from "node:fs";
import { readFile, realpath, rename, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import process from "node:process";
import { enter, type Machine } from "./machine.ts";
import { runCommand, startCommand } from "./run.ts";
import { root } from "./runtime.ts";
import { needsRoot } from "./skip.ts";
import { tempDir } from "./tmp.ts";
import { waitFor } from "./wait.ts";

const packages =
  "git,ca-certificates,rsync,openssh-client,openssh-server,nginx-light,util-linux,systemd,systemd-sysv,dbus,iproute2,procps,curl,openssl";

/** The Node that is brought into it; BOATYARD_SOAK_NODE names another. */
export const debianNode = process.env["BOATYARD_SOAK_NODE"] ?? "/usr/bin/node";

const lacks = (file: string, what: string) => (existsSync(file) ? undefined : what);

/** Why none can be booted here; undefined when one can. */
export const noBootedDebian =
  needsRoot ??
  lacks("/usr/sbin/debootstrap", "needs debootstrap (apt install debootstrap)") ??
  lacks("/usr/bin/systemd-nspawn", "needs systemd-nspawn (systemd-container)") ??
  lacks(join(root, "dist/setup.mjs"), "no bundles: npm run bundle") ??
  lacks(debianNode, `no Node at ${debianNode}`);

/** Makes a minimal Debian in `folder/SUITE`, unless it is there: two minutes, most of them waiting. */
export async function prepareDebian(folder: string, suite: string): Promise<string> {
  const ready = join(folder, suite);
  if (existsSync(ready)) return ready;
  const half = `${ready}.half`;
  await rm(half, { recursive: true, force: true });
  const argv = ["debootstrap", "--variant=minbase", `--include=${packages}`, suite, half];
  await runCommand(argv, { expect: 0, timeout: 900_000 });
  await rename(half, ready);
  return ready;
}

let own: string | undefined;

/** The folder of a minimal Debian that nobody writes to: in BOATYARD_SOAK_ROOT, or made once for this process. */
async function sharedDebian(suite: string): Promise<string> {
  const shared = process.env["BOATYARD_SOAK_ROOT"];
  if (shared !== undefined && existsSync(join(shared, suite))) return join(shared, suite);
  own ??= tempDir("debian-");
  return await prepareDebian(own, suite);
}

/** A copy to write to. */
export async function copyDebian(suite: string): Promise<string> {
  const folder = join(tempDir("debian-"), suite);
  const argv = ["cp", "-a", await sharedDebian(suite), folder];
  await runCommand(argv, { expect: 0, timeout: 300_000 });
  return folder;
}

/** Removes it: 20,000 files are too many for the moment in which a test file ends. */
export async function removeDebian(folder: string): Promise<void> {
  await runCommand(["rm", "-rf", "--one-file-system", folder], { expect: 0, timeout: 300_000 });
}

/** Makes cgroups for a system: its systemd takes all below its own for its units, so two must not share them. */
async function makeCgroups(): Promise<string[]> {
  const mounts = await readFile("/proc/self/mountinfo", "utf8");
  const own = await readFile("/proc/self/cgroup", "utf8");
  const kinds = [
    { mount: /^\S+ \S+ \S+ \/ (\S+) .*- cgroup2 /m, path: /^0::(.*)$/m },
    { mount: /^\S+ \S+ \S+ \/ (\S+) .*- cgroup .*name=systemd/m, path: /:name=systemd:(.*)$/m },
  ];
  const name = basename(tempDir("debian-"));
  return kinds.flatMap(({ mount, path }) => {
    const [at, below] = [mount.exec(mounts)?.[1], path.exec(own)?.[1]];
    if (at === undefined || below === undefined) return [];
    mkdirSync(join(at, below, name));
    return [join(at, below, name)];
  });
}

/**
 * Boot a Debian, with systemd as process 1 and a network of its own; what is written there is in memory, over the shared
 * folder, and gone with it. /root/clone is a clone of this repository with its bundles; npm does nothing: there is no
 * registry here. Needs root and systemd-nspawn.
 */
export async function bootDebian(suite: string): Promise<Machine> {
  const nspawn = ["systemd-nspawn", "--register=no", "--keep-unit", "--private-network", "-q"];
  const clone = ["dist", "templates", "hooks"].map((name) => `--bind-ro=${join(root, name)}:/mnt/${name}`);
  const node = `--bind-ro=${await realpath(debianNode)}:/usr/local/bin/node`;
  const cgroups = await makeCgroups();
  const into = cgroups.flatMap((each) => ["sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', each]);
  const flags = ["--volatile=overlay", ...clone, node, "-D", await sharedDebian(suite), "-b"];
  const running = startCommand([...into, ...nspawn, ...flags], {
    // also on a host whose own hierarchy is an older one
    env: { UNIFIED_CGROUP_HIERARCHY: "1", SYSTEMD_NSPAWN_UNIFIED_HIERARCHY: "1" },
  });
  let init = "";
  await waitFor(
    async () => {
      init = (await runCommand(["pgrep", "-P", String(running.pid)])).stdout.trim();
      if (!/^\d+$/.test(init)) return false;
      const argv = ["nsenter", "-t", init, "-a", "/usr/bin/systemctl", "is-system-running"];
      return /running|degraded/.test((await runCommand(argv)).stdout);
    },
    { timeout: 60_000, what: () => `Debian to boot:\n${running.output()}` },
  );
  const machine: Machine = {
    init,
    sh: (text, expect = 0, input) => enter(init, text, expect, input),
    async stop() {
      process.kill(Number(init), "SIGKILL"); // and with it all that runs there
      await running.exited;
      await runCommand(["find", ...cgroups, "-depth", "-type", "d", "-delete"], { expect: 0 });
    },
  };
  await machine.sh(`
    cp -r /mnt clone
    umount /mnt/*
    printf '#!/bin/sh\\n' >/usr/local/bin/npm
    chmod 755 /usr/local/bin/npm`);
  return machine;
}

// A Debian of its own: a root made by debootstrap, and, where systemd-nspawn is installed, booted.
import { existsSync } from "node:fs";
import { chmod, copyFile, cp, realpath, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
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

/** A minimal Debian of one's own; a copy where BOATYARD_SOAK_ROOT names a folder in which `prepareDebian` made one. */
export async function makeDebian(suite: string): Promise<string> {
  const own = tempDir("debian-");
  const shared = join(process.env["BOATYARD_SOAK_ROOT"] ?? "/nowhere", suite);
  if (!existsSync(shared)) return await prepareDebian(own, suite);
  const folder = join(own, suite);
  await runCommand(["cp", "-a", shared, folder], { expect: 0, timeout: 300_000 });
  return folder;
}

/** Removes it: 20,000 files are too many for the moment in which a test file ends. */
export async function removeDebian(folder: string): Promise<void> {
  await runCommand(["rm", "-rf", "--one-file-system", folder], { expect: 0, timeout: 300_000 });
}

/** Puts Node and a clone of this repository with its bundles into it, as /root/clone. There is no registry for npm. */
export async function bringClone(folder: string, node: string): Promise<void> {
  await copyFile(await realpath(node), join(folder, "usr/local/bin/node"));
  await chmod(join(folder, "usr/local/bin/node"), 0o755);
  await writeFile(join(folder, "usr/local/bin/npm"), "#!/bin/sh\n", { mode: 0o755 });
  for (const name of ["dist", "templates", "hooks"])
    await cp(join(root, name), join(folder, "root/clone", name), { recursive: true });
}

/** Boot it, with systemd as process 1 and a network of its own. Needs root and systemd-nspawn. */
export async function bootDebian(folder: string): Promise<Machine> {
  const nspawn = ["systemd-nspawn", "--register=no", "--keep-unit", "--private-network", "-q"];
  const running = startCommand([...nspawn, "-D", folder, "-b"], {
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
  return {
    init,
    sh: (text, expect = 0, input) => enter(init, text, expect, input),
    // init is told to halt, as nspawn(1) has it
    async stop() {
      await runCommand(["kill", "-s", "RTMIN+3", init]);
      const timer = setTimeout(() => running.kill("SIGKILL"), 20_000);
      await running.exited.finally(() => clearTimeout(timer));
      await removeDebian(folder);
    },
  };
}

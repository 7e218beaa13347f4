// A Debian of its own: a root made by debootstrap, and, where systemd-nspawn is installed, booted.
import { access } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { runCommand, startCommand } from "./run.ts";
import { tempDir } from "./tmp.ts";
import { waitFor } from "./wait.ts";

const packages =
  "git,ca-certificates,rsync,openssh-client,util-linux,systemd,systemd-sysv,dbus,iproute2,curl,openssl";

/**
 * A minimal Debian. BOATYARD_SOAK_ROOT spares the two minutes: a folder with a copy for each suite
 * (`DIR/bookworm`, `DIR/trixie`), each made by debootstrap with these packages.
 */
export async function makeDebian(suite: string): Promise<string> {
  const folder = join(tempDir("debian-"), "root");
  const ready = join(process.env["BOATYARD_SOAK_ROOT"] ?? "/nowhere", suite);
  if (
    await access(ready).then(
      () => true,
      () => false,
    )
  ) {
    await runCommand(["cp", "-a", ready, folder], { expect: 0, timeout: 300_000 });
    return folder;
  }
  const argv = ["debootstrap", "--variant=minbase", `--include=${packages}`, suite, folder];
  await runCommand(argv, { expect: 0, timeout: 900_000 });
  return folder;
}

export type Machine = {
  /** Run a bash text in it as root; its exit code must be `expect`. */
  sh: (text: string, expect?: number) => Promise<{ stdout: string; stderr: string }>;
  stop: () => Promise<void>;
};

/** Boot it, with systemd as process 1 and a network of its own. Needs root and systemd-nspawn. */
export async function bootDebian(folder: string): Promise<Machine> {
  const nspawn = ["systemd-nspawn", "--register=no", "--keep-unit", "--private-network", "-q"];
  const running = startCommand([...nspawn, "-D", folder, "-b"], {
    // also on a host whose own hierarchy is an older one
    env: { UNIFIED_CGROUP_HIERARCHY: "1", SYSTEMD_NSPAWN_UNIFIED_HIERARCHY: "1" },
  });
  let init = "";
  const sh = (text: string, expect = 0) =>
    runCommand(
      [
        ...["nsenter", "-t", init, "-a", "/usr/bin/env", "-i", "HOME=/root", "LANG=C.UTF-8"],
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ...["bash", "-e", "-c", `cd\n${text}`],
      ],
      { expect, timeout: 120_000 },
    );
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
    sh,
    // init is told to halt, as nspawn(1) has it
    async stop() {
      await runCommand(["kill", "-s", "RTMIN+3", init]);
      const timer = setTimeout(() => running.kill("SIGKILL"), 20_000);
      await running.exited.finally(() => clearTimeout(timer));
    },
  };
}

// A machine of its own in a fraction of a second, for what is typed as root: own files over those of this machine, own
// processes, own accounts, own loopback. Nothing done there is seen outside, and all is gone with it.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { type RunResult, runCommand, startCommand } from "./run.ts";
import { root as project } from "./runtime.ts";
import { needsCommand, needsRoot } from "./skip.ts";
import { tempDir } from "./tmp.ts";

export type Machine = {
  /** Run a bash text in it as root, from root's home; its exit code must be `expect`. */
  sh: (text: string, expect?: number, input?: string) => Promise<RunResult>;
  /** Its process 1. */
  init: string;
  stop: () => Promise<void>;
};

/**
 * Debian's own files lie below, and a layer in memory over them takes what is written (overlayfs). /root/clone is a clone
 * of this repository with its bundles, which lie in /usr/local/lib/boatyard, too, as a person puts them there; node is the one that runs the tests; systemctl is systemctl.sh beside this
 * file, and npm does nothing: there is no registry here.
 */
const begin = `
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 boatyard "$1"
cd "$1"
mkdir upper work root
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" boatyard root
cd root
for place in run home srv; do mount -t tmpfs -o mode=755 boatyard $place; done
mount -t tmpfs -o mode=700 boatyard root
mount -t tmpfs -o mode=1777 boatyard tmp
mount -t proc proc proc
mount --rbind /dev dev
rm -rf etc/boatyard etc/server-update etc/gitconfig etc/systemd/system/* usr/local/lib/boatyard var/lib/boatyard bin/slave-activate
for each in passwd group shadow gshadow; do sed -i '/^\\(site\\|slave\\|my-app\\):/d' etc/$each; done
for script in "$2"/dist/*.mjs; do name=\${script##*/}; rm -f "usr/local/bin/\${name%.mjs}"; done
mkdir root/clone run/systemd run/systemd/system usr/local/lib/boatyard
cp "$2"/dist/*.mjs usr/local/lib/boatyard
chown -R 0:0 usr/local/lib/boatyard
cp -r "$2/dist" "$2/templates" "$2/hooks" root/clone
rm -f usr/local/bin/node; touch usr/local/bin/node; mount --bind "$3" usr/local/bin/node
for each in systemctl npm; do rm -f usr/local/bin/$each; done
printf '#!/bin/sh\\n' >usr/local/bin/npm
# there is no systemd to make scopes: a run is a plain child
printf '#!/bin/sh\\nexit 1\\n' >usr/local/bin/systemd-run
cat >usr/local/bin/systemctl
chmod 755 usr/local/bin/npm usr/local/bin/systemctl usr/local/bin/systemd-run
ip link set lo up
hostname master
mkdir -p mnt
pivot_root . mnt
umount -l mnt
echo ready
# process 1 takes leave of those that nobody waits for
exec chroot . sh -c 'while :; do sleep 3600 & wait $!; done'
`;

/** Why there can be no such machine here; undefined when there can. */
export const noMachine: string | undefined =
  needsRoot ??
  needsCommand("unshare") ??
  needsCommand("ip") ??
  ((await runCommand(["unshare", "--mount", "--net", "--pid", "true"])).code === 0 &&
  /\toverlay$/m.test(await readFile("/proc/filesystems", "utf8"))
    ? undefined
    : "needs the right to make namespaces, and overlayfs");

export async function startMachine(): Promise<Machine> {
  const node = (await runCommand(["sh", "-c", 'readlink -f "$(command -v node)"'])).stdout.trim();
  const running = startCommand(
    [
      ...["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child"],
      ...["sh", "-c", begin, "sh", tempDir("machine-"), project, node],
    ],
    { input: await readFile(join(import.meta.dirname, "systemctl.sh")) },
  );
  await running.until(/^ready$/m);
  const init = (await readFile(`/proc/${running.pid}/task/${running.pid}/children`, "utf8")).trim();
  return {
    init,
    sh: (text, expect = 0, input) => enter(init, text, expect, input),
    async stop() {
      process.kill(Number(init), "SIGKILL"); // and with it all that runs there
      await running.exited;
    },
  };
}

/** Run a bash text as root in the namespaces of a process, with the environment that a login there has. */
export function enter(init: string, text: string, expect: number, input?: string): Promise<RunResult> {
  return runCommand(
    [
      ...["nsenter", "-t", init, "-a", "/usr/bin/env", "-i", "HOME=/root", "LANG=C.UTF-8"],
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      ...["bash", "-e", "-c", `cd; set -a; . /etc/environment; set +a\n${text}`],
    ],
    { expect, timeout: 120_000, ...(input === undefined ? {} : { input }) },
  );
}

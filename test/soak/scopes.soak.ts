// Runs under the real unit and a real systemd: they go on when the server ends, limits hold, and nothing escapes. In a
// booted container, and, for limits where this machine's kernel gives none to a container, in a kernel of its own.
import { existsSync, readFileSync } from "node:fs";
import { copyFile, cp, mkdir, realpath, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { bootDebian, copyDebian, debianNode, noBootedDebian, removeDebian } from "../helpers/debian.ts";
import { secret } from "../helpers/hooks.ts";
import { runCommand } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const config = `
drain: 1s
repos:
  me/site:
    user: site
    dir: /home/site
    secret_file: site.secret
    refs: [main]
    poll: 2s
    timeout: 60s
    on: { push: /home/job }
    limits: { memory: 128M, processes: 40 }
`;

/** A signed push of a commit that nobody has; prints the run's id. */
const deliver = `#!/bin/bash
sha=$(openssl rand -hex 20)
body='{"ref":"refs/heads/main","after":"'$sha'","deleted":false,"repository":{"full_name":"me/site","default_branch":"main"}}'
sig=$(printf %s "$body" | openssl dgst -sha256 -hmac "$(cat /etc/boatyard/site.secret)" -hex | sed 's/.* //')
curl -sS --max-time 60 -H content-type:application/json -H x-github-event:push -H "x-github-delivery: $sha" \\
  -H "x-hub-signature-256: sha256=$sig" --data-binary "$body" --unix-socket /run/boatyard/deliveries.sock http://localhost/hook | sed 's/.*"run":"\\([^"]*\\)".*/\\1/'
`;

/** Each step says what it saw; the test compares. */
const scenario = `#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /root
# a kernel of its own sees its files through another's, which keeps users from making some
grep -q " / hostfs " /proc/mounts && for each in /home /tmp /var/tmp; do mount -t tmpfs -o mode=1777 none $each; done
install -d -o site -g site /home/site
job() { printf '#!/bin/bash\\n%s\\n' "$1" >/home/job; chmod 755 /home/job; }
record() { grep -F "$1" /var/lib/boatyard/runs.jsonl 2>/dev/null | tail -1; }
finish() { # RUN: its state and reason once it has ended
  for i in $(seq 600); do record $1 | grep -qE '"state":"(succeeded|failed|cancelled)"' && break; sleep 0.2; done
  record $1 | grep -oE '"(state|reason|attempt|exit)":("[^"]*"|[0-9]+)' | tr -d '"' | sed 's/:/: /' | sort | tr '\\n' ';'; echo
}
begin() { rm -f /home/site/begun; run=$(deliver); for i in $(seq 300); do test -e /home/site/begun && break; sleep 0.1; done; }
pid() { systemctl show --property=MainPID --value hook-server.service; }
systemctl start hook-server.socket hook-server.service
echo "active: $(systemctl is-active hook-server.service)"
hook-server --check --config /etc/boatyard/hooks.yml | grep -E "runs go on|in a scope"
job 'NOTIFY_SOCKET=/run/systemd/notify systemd-notify STATUS=taken MAINPID=$$
for each in $(find /sys/fs/cgroup -name cgroup.procs); do echo $$ >$each && echo "left to $each"; done 2>/dev/null
find /sys/fs/cgroup -type d -exec mkdir {}/x \\; 2>/dev/null ; ls -d /sys/fs/cgroup/x 2>/dev/null
sed s/^/in:/ /proc/self/cgroup | tail -1; env | grep -E "^(NOTIFY|LISTEN|WATCHDOG|INVOCATION)"; exit 0'
before=$(pid); run=$(deliver); echo "plain: $(finish $run)"; grep -v hook-server\\ \\| /var/lib/boatyard/runs/$run/log | sed -E "s/run-[0-9TZa-f-]+-[0-9]+-[0-9]+/run/"
test "$before" = "$(pid)" && systemctl show --property=StatusText hook-server.service
# git for a repo, as its user: what its ssh says is not the service's word either
runuser -u site -- sh -c 'cd; git init -q; git remote add origin ssh://nowhere/x; printf "#!/bin/sh\\nsed s/^/git:/ /proc/self/cgroup | tail -1 >~/where; NOTIFY_SOCKET=/run/systemd/notify systemd-notify STATUS=taken\\n" >ssh; chmod +x ssh; git config core.sshCommand ~/ssh'
for i in $(seq 150); do test -s /home/site/where && break; sleep 0.2; done; sed -E "s/run-[a-zA-Z0-9-]+\\.scope/ANY.scope/" /home/site/where; systemctl show --property=StatusText hook-server.service
job 'env -i setsid sh -c "setsid sleep 7788 &" ; touch begun; for i in $(seq 20); do mktemp /tmp/x.XXXX >/dev/null 2>&1 || ls -ld /tmp; sleep 0.3; done; exit 7'
begin; kill -9 $(pid); echo "killed: $(finish $run)"
begin; systemctl restart hook-server.service; echo "restarted: $(finish $run)"; grep -c "hook-server |" /var/lib/boatyard/runs/$run/log
begin; systemctl stop hook-server.socket hook-server.service; pgrep -c -x job; systemctl daemon-reload; systemctl start hook-server.socket hook-server.service; echo "stopped: $(finish $run)"
echo "stays: $(pgrep -c -f 'sleep 7788')"
pkill -f 'sleep 7788'
job 'env -i setsid sh -c "setsid sleep 7789 &" ; touch begun; sleep 7789'
begin; kill -9 $(pid); sleep 3; for i in $(seq 100); do hook-server cancel $run >/dev/null 2>&1 && break; sleep 0.3; done; for i in $(seq 50); do pgrep -f "sleep 7789" >/dev/null || break; sleep 0.1; done
echo "cancelled: $(finish $run) $(pgrep -c -f 'sleep 7789')"
sed -i 's/timeout: 60s/timeout: 2s/' /etc/boatyard/hooks.yml; systemctl reload hook-server.service
run=$(deliver); echo "timed out: $(finish $run) $(pgrep -c -f 'sleep 7789')"
sed -i 's/timeout: 2s/timeout: 60s/' /etc/boatyard/hooks.yml; systemctl reload hook-server.service
grep -qw memory /sys/fs/cgroup/cgroup.controllers && {
  job 'head -c 500M /dev/zero | tail | wc -c'; echo "memory: $(finish $(deliver))"
  job 'for i in $(seq 60); do sleep 30 & done 2>/dev/null; sleep 1'; echo "processes: $(finish $(deliver))"
  job 'touch begun; sleep 4; head -c 500M /dev/zero | tail | wc -c'; begin; systemctl stop hook-server.socket hook-server.service; sleep 8
  systemctl start hook-server.socket hook-server.service; echo "memory, alone: $(finish $run)"
  hook-server list | grep -c "out of memory (limit 128 MB)"
}
job 'touch begun; sleep 7790'; begin
scope="$(systemctl list-units --no-legend --plain "boatyard-run-$run-*" | cut -d" " -f1)"
echo "before: $(systemctl show --property=Before --value "$scope" | grep -ow hook-server.service)"
systemctl stop boatyard-runs.slice; echo "slice: $(finish $run)"
echo "failed units: $(systemctl --failed --no-legend | grep -c hook)"
echo done
`;

/** Puts the server, its units, a user and the scenario into a Debian that has a clone of this repository. */
const furnish = `
cp -r /root/clone/dist /usr/local/lib/boatyard
ln -s ../lib/boatyard/hook-server.mjs /usr/local/bin/hook-server
cp /root/clone/templates/hook-server.* /etc/systemd/system
mkdir /etc/boatyard
cat >/etc/boatyard/hooks.yml <<'end'${config}end
cat >/usr/local/bin/deliver <<'end'
${deliver}end
cat >/root/scenario <<'end'
${scenario}end
umask 077
echo ${secret} >/etc/boatyard/site.secret
chmod 755 /usr/local/bin/deliver /root/scenario
useradd --create-home --user-group site
`;

function compare(seen: string, limits: boolean): void {
  const cgroup = "0::/boatyard.slice/boatyard-runs.slice/";
  const status = "StatusText=listening on systemd's socket";
  const went = (what: string) => `${what}: attempt: 1;exit: 7;reason: exit code 7;state: failed;`;
  const lines = [
    "active: active",
    "ok    each run is in a scope of systemd, with which all that it started is ended",
    "ok    runs go on when the server is killed, restarted or upgraded",
    "plain: attempt: 1;exit: 0;state: succeeded;",
    `in:${cgroup}boatyard-run.scope`,
    status,
    `git:${cgroup}ANY.scope`,
    status,
    went("killed"),
    went("restarted"),
    "1",
    "1",
    went("stopped"),
    "stays: 3",
    "cancelled: attempt: 1;reason: cancelled by hand;state: cancelled; 0",
    "timed out: attempt: 1;exit: 128;reason: took longer than 2.0s and was ended;state: failed; 0",
    ...(limits
      ? [
          "memory: attempt: 1;exit: 0;reason: out of memory (limit 128 MB);state: failed;",
          // bash says so by its exit code, once it has tried for long enough
          "processes: attempt: 1;exit: 254;reason: exit code 254; could not start a process (limit 40 processes);state: failed;",
          "memory, alone: attempt: 1;exit: 0;reason: out of memory (limit 128 MB);state: failed;",
          "2",
        ]
      : []),
    "before: hook-server.service",
    "slice: attempt: 1;exit: 128;reason: its process was ended by SIGTERM;state: failed;",
    "failed units: 0",
    "done",
  ];
  assert.equal(seen.trim().split("\n"), lines);
}

for (const suite of ["bookworm", "trixie"]) {
  const other = suite === "trixie" && process.env["SOAK_TRIXIE"] !== "1" && "set SOAK_TRIXIE=1 for it";
  testUnless(test, noBootedDebian || other)(
    `a booted ${suite}: runs outlive the server, and are ended whole`,
    async () => {
      const { sh, stop } = await bootDebian(suite);
      try {
        await sh(furnish);
        const { stdout } = await sh("cat /sys/fs/cgroup/cgroup.controllers");
        compare((await sh("systemd-run --quiet --wait --pipe /root/scenario")).stdout, /\bmemory\b/.test(stdout));
      } finally {
        await stop();
      }
    },
  );
}

/** Debian's own kernel as a program (package user-mode-linux): it has all controllers, and takes 10 s to boot. */
testUnless(test, noBootedDebian || needsCommand("linux.uml"))(
  "a bookworm on a kernel of its own: limits hold, and a run that met one says which",
  async () => {
    const folder = await copyDebian("bookworm");
    await copyFile(await realpath(debianNode), join(folder, "usr/local/bin/node"));
    for (const name of ["dist", "templates"])
      await cp(join(root, name), join(folder, "root/clone", name), { recursive: true });
    await runCommand(["chroot", folder, "bash", "-e", "-c", furnish], { expect: 0 });
    const unit = `[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/bin/sh -c '/root/scenario >/root/seen 2>&1; exec systemctl poweroff -ff'\n`;
    const units = join(folder, "etc/systemd/system");
    await writeFile(join(units, "scenario.service"), unit);
    await mkdir(join(units, "multi-user.target.wants"), { recursive: true });
    await symlink("../scenario.service", join(units, "multi-user.target.wants/scenario.service"));
    const argv = [
      "linux.uml",
      ...["root=/dev/root", "rootfstype=hostfs", `rootflags=${folder}`, "rw", "mem=1024M"],
      ...["init=/lib/systemd/systemd", "con=null", "con0=null", `uml_dir=${tempDir("uml-")}`],
    ];
    await runCommand(argv, { timeout: 600_000 });
    const seen = join(folder, "root/seen");
    assert.ok(existsSync(seen), "it booted");
    compare(readFileSync(seen, "utf8"), true);
    await removeDebian(folder);
  },
);

test.run();

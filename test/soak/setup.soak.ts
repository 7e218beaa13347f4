// The page "a server in ten minutes", followed to the letter in a fresh Debian of its own (debootstrap), as root:
// a push is built by the repo's own user, under the powers that the unit leaves to the server.
import { createHmac, randomUUID } from "node:crypto";
import { access, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runCommand, startCommand } from "../helpers/run.ts";
import { bringClone, debianNode, makeDebian, removeDebian } from "../helpers/debian.ts";
import { freePort } from "../helpers/ports.ts";
import { root as project } from "../helpers/runtime.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";

const has = (file: string) =>
  access(file).then(
    () => true,
    () => false,
  );
const missing =
  needsRoot ??
  (!(await has("/usr/sbin/debootstrap")) && "needs debootstrap (apt install debootstrap)") ??
  undefined;
const noBundles = !(await has(join(project, "dist/setup.mjs"))) && "no bundles: npm run bundle";
const noNode = !(await has(debianNode)) && `no Node at ${debianNode}`;

function inside(folder: string, argv: string[]): string[] {
  const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  // a namespace of its own: /proc goes with it, whatever happens
  const script = 'mount -t proc proc "$0/proc"; exec chroot "$0" "$@"';
  const env = ["/usr/bin/env", "-i", path, "HOME=/root", "LANG=C.UTF-8"];
  return [
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "sh",
    "-c",
    script,
    folder,
    ...env,
    ...argv,
  ];
}

for (const suite of ["bookworm", "trixie"]) {
  const other =
    suite === "trixie" && process.env["SOAK_TRIXIE"] !== "1" && "set SOAK_TRIXIE=1 for it";
  testUnless(test, missing || noBundles || noNode || other)(
    `docs/server.md followed to the letter on ${suite}: a push is built by its own user`,
    async () => {
      const folder = await makeDebian(suite);
      try {
        await follow(folder);
      } finally {
        await removeDebian(folder);
      }
    },
  );
}

async function follow(folder: string): Promise<void> {
  const sh = (text: string, expect = 0) =>
    runCommand(inside(folder, ["bash", "-e", "-c", text]), { expect, timeout: 300_000 });
  // step 1 of the page
  await bringClone(folder, debianNode);
  await rename(join(folder, "root/clone/dist"), join(folder, "root/boatyard"));
  // GitHub, as this machine has none: a bare repository under the same URL
  await sh(`
    git config --system safe.directory '*'
    git config --system url."file:///srv/git/".insteadOf https://github.com/
    git init -q --bare --initial-branch=main /srv/git/jostylr/site.git
    git clone -q /srv/git/jostylr/site.git /root/work 2>/dev/null
    cd /root/work
    git config user.email ada@example.com; git config user.name Ada
    printf 'stages: [pull, who]\\ncommands:\\n  who: id -un > who.txt; umask >> who.txt\\n' > build.yml
    git add .; git commit -qm one; git push -q origin HEAD:main`);

  const page = await readFile(join(project, "docs/server.md"), "utf8");
  const blocks = [...page.matchAll(/^```sh (server|server-after)\n([\s\S]*?)^```$/gm)];
  assert.ok(blocks.length >= 5, "the page has its blocks");
  let printed = "";
  for (const [, when, text = ""] of blocks) {
    if (when !== "server" || text.startsWith("apt-get")) continue; // debootstrap has installed those
    printed += (await sh(text)).stdout;
  }
  const secret = /^ {2}Secret\s+([0-9a-f]{64})$/m.exec(printed)?.[1] ?? "";
  assert.is(secret.length, 64, printed);

  // again: nothing changes
  for (const text of blocks
    .filter(([, when]) => when === "server")
    .map(([, , each = ""]) => each)) {
    if (text.startsWith("apt-get")) continue;
    const again = await sh(text);
    assert.match(again.stderr, "nothing was missing");
    assert.not.match(again.stdout, secret);
  }

  // systemd does not run here: the unit's command, under the powers that the unit leaves to it
  const unit = await readFile(join(folder, "etc/systemd/system/hook-server.service"), "utf8");
  const powers = /^CapabilityBoundingSet=(.+)$/m.exec(unit)?.[1]?.split(" ") ?? [];
  const bounds = ["-all", ...powers.map((name) => `+${name.slice(4).toLowerCase()}`)].join(",");
  const command = /^ExecStart=(.+)$/m.exec(unit)?.[1]?.split(" ") ?? [];
  const port = await freePort();
  const fence = ["setpriv", "--no-new-privs", `--bounding-set=${bounds}`, "--inh-caps=-all", "--"];
  const server = startCommand(
    inside(folder, [...fence, ...command, "--listen", `127.0.0.1:${port}`]),
  );
  try {
    const url = `http://127.0.0.1:${port}`;
    await waitFor(() => fetch(`${url}/healthz`).then((answer) => answer.ok), {
      what: () => server.output(),
    });
    const deliver = async () => {
      const { stdout } = await sh("git -C /srv/git/jostylr/site.git rev-parse main");
      const sha = stdout.trim();
      const body = JSON.stringify({
        ref: "refs/heads/main",
        before: "0".repeat(40),
        after: sha,
        deleted: false,
        repository: { full_name: "jostylr/site", default_branch: "main" },
        head_commit: { id: sha },
      });
      const headers = {
        "content-type": "application/json",
        "x-github-event": "push",
        "x-github-delivery": randomUUID(),
        "x-hub-signature-256": `sha256=${createHmac("sha256", secret).update(body).digest("hex")}`,
      };
      const answer = await fetch(`${url}/hook`, { method: "POST", headers, body });
      const text = await answer.text();
      assert.is(answer.status, 202, text);
      return (JSON.parse(text) as { run: string }).run;
    };
    await deliver();
    const who = join(folder, "home/site/site/who.txt");
    await waitFor(() => has(who), {
      timeout: 60_000,
      what: () => `the build:\n${server.output()}`,
    });
    await waitFor(async () => (await readFile(who, "utf8")) === "site\n0022\n", {
      what: "the build to be of user site with umask 022",
    });
    await waitFor(async () => /succeeded/.test((await sh("hook-server list")).stdout), {
      timeout: 30_000,
      what: "the run's end",
    });
    await waitFor(async () => (await sh("logs /home/site/site")).stdout.includes("who"), {
      what: "the log of the build",
    });
    // a run with a child in a session of its own is ended whole: the server's KILL and SYS_PTRACE are enough
    await sh(`
      cd /root/work
      printf 'stages: [pull, hang]\\ncommands:\\n  hang: setsid sleep 98765 & touch hangs; sleep 98766\\n' > build.yml
      git commit -qam two; git push -q origin HEAD:main`);
    const run = await deliver();
    await waitFor(() => has(join(folder, "home/site/site/hangs")), {
      timeout: 60_000,
      what: () => server.output(),
    });
    await sh(`hook-server cancel ${run}`);
    const sleeping = () =>
      runCommand(["pgrep", "-f", "^sleep 9876[56]$"]).then(({ code }) => code === 0);
    await waitFor(async () => !(await sleeping()), { what: "the run's children to end" });
  } finally {
    await server.stop();
  }
}

test.run();

// What stands around a machine in the documents: a forge, hosts by name, ssh between them, a web server.
import { access } from "node:fs/promises";
import { join } from "node:path";
import type { Machine } from "./machine.ts";
import { noNginx } from "./nginx.ts";
import { root } from "./runtime.ts";
import { needsCommand } from "./skip.ts";
import { needsSshd } from "./sshd.ts";

/** Why there is no such world here; undefined when there is. */
export const noWorld: string | undefined =
  (await access(join(root, "dist/setup.mjs")).then(
    () => undefined,
    () => "no bundles: npm run bundle",
  )) ??
  noNginx ??
  needsSshd ??
  needsCommand("rsync") ??
  needsCommand("curl") ??
  needsCommand("openssl") ??
  needsCommand("systemd-socket-activate");

/** A signed push of main, as GitHub sends it: `deliver OWNER/NAME SECRET-FILE`. */
const deliver = `#!/bin/bash
sha=$(git -C "/srv/git/$1.git" rev-parse main)
body='{"ref":"refs/heads/main","before":"'$(printf %040d 0)'","after":"'$sha'","deleted":false,"repository":{"full_name":"'$1'","default_branch":"main"},"head_commit":{"id":"'$sha'"}}'
sig=$(printf %s "$body" | openssl dgst -sha256 -hmac "$(cat "$2")" -hex | sed 's/.* //')
exec curl -sS --max-time 20 -H content-type:application/json -H x-github-event:push -H "x-github-delivery: $RANDOM$RANDOM" \\
  -H "x-hub-signature-256: sha256=$sig" --data-binary "$body" http://127.0.0.1:3420/hook
`;

/** A push that hook-server has finished: `pushed OWNER/NAME SECRET-FILE TEXT` commits TEXT and waits for its run's end. */
const pushed = `#!/bin/bash
set -e
cd "/root/work/$1"
echo "$3" > index.html
git add .
git commit -qm "$3"
git push -q origin HEAD:main
answer=$(deliver "$1" "$2")
run=$(echo "$answer" | grep -o '2[0-9TZ]*-[0-9a-f]*') || { echo "$answer"; exit 1; }
for _ in $(seq 100); do
  hook-server show "$run" --json | grep -Eq '"state": ?"(succeeded|failed)"' && break
  sleep 0.1
done
hook-server show "$run" --json | grep -Eq '"state": ?"succeeded"' || { hook-server log "$run"; exit 1; }
`;

/**
 * GitHub, as there is none: bare repos under the same URL, by git's insteadOf; git's daemon serves them too, for those
 * who read no configuration. All hosts are this machine, which ssh reaches as root.
 */
export async function furnish(
  { sh }: Machine,
  { repos, hosts }: { repos: string[]; hosts: string[] },
): Promise<void> {
  await sh("cat >/usr/local/bin/deliver; chmod 755 /usr/local/bin/deliver", 0, deliver);
  await sh("cat >/usr/local/bin/pushed; chmod 755 /usr/local/bin/pushed", 0, pushed);
  await sh(`
    echo '127.0.0.1 ${hosts.join(" ")}' >>/etc/hosts
    git config --system safe.directory '*'
    git config --system url.file:///srv/git/.insteadOf https://github.com/
    git config --system user.email ada@example.com
    git config --system user.name Ada
    for repo in ${repos.join(" ")}; do
      git init -q --bare --initial-branch=main /srv/git/$repo.git
      git clone -q /srv/git/$repo.git work/$repo 2>/dev/null
      cd work/$repo
      printf 'stages: [pull, who]\\ncommands:\\n  who: id -un > who.txt; umask >> who.txt\\n' > build.yml
      echo one > index.html; git add .; git commit -qm one; git push -q origin HEAD:main
      cd
    done
    setsid git daemon --export-all --base-path=/srv/git /srv/git >/dev/null 2>&1 &
    mkdir -p -m 755 /run/sshd
    mkdir -p -m 700 .ssh
    [ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
    ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519
    cat .ssh/id_ed25519.pub >>.ssh/authorized_keys
    printf 'ControlMaster auto\\nControlPath ~/.ssh/%%h\\nControlPersist 60\\n' >.ssh/config
    ss -ltn | grep -q ':22 ' || /usr/sbin/sshd
    until ss -ltn | grep -q ':22 '; do sleep 0.05; done
    for host in ${hosts.join(" ")}; do ssh-keyscan -t ed25519 $host; done >.ssh/known_hosts 2>/dev/null`);
}

/** A web server for a folder under a host's name, without a certificate: nginx, as Debian configures it. */
export async function serve({ sh }: Machine, host: string, folder: string): Promise<void> {
  await sh(`
    mkdir -p ${folder}
    echo '127.0.0.1 ${host}' >>/etc/hosts
    echo 'server { listen 80; server_name ${host}; root ${folder}; }' >/etc/nginx/conf.d/${host}.conf
    nginx -s reload 2>/dev/null || nginx`);
}

/** An app in ~/app that answers on 127.0.0.1:8080 with its version, and what publishes it to /srv/www. */
export async function makeApp({ sh }: Machine) {
  await sh("mkdir -p app/build; cat >app/build/server.js", 0, appServer);
  const made = await sh(`
    printf 'app: { exec: node server.js, forever: true, listen: 8080 }\\n' >app/build/launchify.yml
    printf 'from: upload\\nto: { web: { rsync: /srv/www/ } }\\n' >app/uploads.yml
    release keygen`);
  const publish = (version: string) =>
    sh(`cd app; echo ${version} >build/page.txt
      release pack --app my-app --version ${version} --from build
      uploads`);
  return { key: /^[0-9A-F]{40}$/m.exec(made.stdout)?.[0] ?? "", publish };
}

export const appServer = `
const page = require("node:fs").readFileSync("page.txt");
const server = require("node:http").createServer((_, answer) => answer.end(page));
server.listen({ fd: 3 });
process.on("SIGTERM", () => server.close(() => process.exit()));
`;

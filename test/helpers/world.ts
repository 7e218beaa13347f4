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
  -H "x-hub-signature-256: sha256=$sig" --data-binary "$body" --unix-socket /run/boatyard/deliveries.sock http://localhost/hook
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

/** Bare repositories as a forge serves them: git's own http-backend, a program of CGI. */
const forge = `
const { spawn } = require("node:child_process");
require("node:http").createServer((ask, answer) => {
  const { pathname, searchParams } = new URL(ask.url, "http://forge");
  const env = {
    PATH: process.env.PATH, GIT_PROJECT_ROOT: "/srv/git", GIT_HTTP_EXPORT_ALL: "1", REQUEST_METHOD: ask.method,
    PATH_INFO: pathname, QUERY_STRING: String(searchParams), CONTENT_TYPE: ask.headers["content-type"] ?? "",
    GIT_PROTOCOL: ask.headers["git-protocol"] ?? "", HTTP_CONTENT_ENCODING: ask.headers["content-encoding"] ?? "",
  };
  const { stdin, stdout } = spawn("git", ["http-backend"], { env, stdio: ["pipe", "pipe", "inherit"] });
  ask.pipe(stdin).on("error", () => {});
  const parts = [];
  stdout.on("data", (part) => parts.push(part)).on("end", () => {
    const all = Buffer.concat(parts);
    const end = all.indexOf("\\r\\n\\r\\n");
    const headers = all.subarray(0, end).toString().split("\\r\\n").map((line) => line.split(": "));
    const status = headers.find(([name]) => name === "Status")?.[1] ?? "200";
    for (const [name, value] of headers) answer.setHeader(name, value);
    answer.writeHead(parseInt(status)).end(all.subarray(end + 4));
  });
}).listen(3080, "127.0.0.1");
`;

const certificate = "/etc/ssl/world.pem";

/**
 * GitHub, as there is none: bare repositories under the same URLs, by https, whose certificate this machine trusts, also
 * for example.com. All hosts are this machine, which ssh reaches as root.
 */
export async function furnish({ sh }: Machine, { repos, hosts }: { repos: string[]; hosts: string[] }): Promise<void> {
  await sh("cat >/usr/local/bin/deliver; chmod 755 /usr/local/bin/deliver", 0, deliver);
  await sh("cat >/usr/local/bin/pushed; chmod 755 /usr/local/bin/pushed", 0, pushed);
  await sh("cat >/usr/local/lib/forge.cjs", 0, forge);
  await sh(`
    echo '127.0.0.1 github.com ${hosts.join(" ")}' >>/etc/hosts
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=world \\
      -addext 'subjectAltName=DNS:github.com,DNS:example.com,DNS:*.example.com' -keyout /etc/ssl/world.key -out ${certificate} 2>/dev/null
    cat ${certificate} >>/etc/ssl/certs/ca-certificates.crt
    echo NODE_EXTRA_CA_CERTS=${certificate} >>/etc/environment
    systemctl set-environment NODE_EXTRA_CA_CERTS=${certificate}
    printf '%s\\n' 'ssl_certificate ${certificate};' 'ssl_certificate_key /etc/ssl/world.key;' \\
      'server { listen 443 ssl; server_name github.com; location / { proxy_pass http://127.0.0.1:3080; } }' >/etc/nginx/conf.d/forge.conf
    nginx -s reload 2>/dev/null || nginx
    setsid node /usr/local/lib/forge.cjs >/dev/null 2>&1 &
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
    mkdir -p -m 755 /run/sshd
    mkdir -p -m 700 .ssh
    [ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
    ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519
    cat .ssh/id_ed25519.pub >>.ssh/authorized_keys
    printf 'ControlMaster auto\\nControlPath ~/.ssh/%%h\\nControlPersist 60\\n' >.ssh/config
    ss -ltn | grep -q ':22 ' || /usr/sbin/sshd
    until ss -ltn | grep -q ':22 '; do sleep 0.05; done
    for host in ${hosts.join(" ")}; do ssh-keyscan -t ed25519 $host; done >.ssh/known_hosts 2>/dev/null
    until curl -sf -o /dev/null https://github.com/${repos[0]}.git/HEAD; do sleep 0.05; done`);
}

/** The scripts where docs/server.md copies them to. */
export const copied = "mkdir -p /usr/local/lib/boatyard; cp clone/dist/*.mjs /usr/local/lib/boatyard/";

/** What docs/server.md leaves behind, with a push of `repo` on its way. */
export async function installServer({ sh }: Machine, repo: string): Promise<void> {
  await sh(`
    ${copied}
    node /usr/local/lib/boatyard/setup.mjs server --yes
    setup repo ${repo} --yes
    until hook-server status --json | grep -q '"${repo}"'; do sleep 0.1; done
    deliver ${repo} /etc/boatyard/${repo.split("/")[1]}.secret`);
}

/** A web server for a folder under a host's name; after `furnish`. */
export async function serve({ sh }: Machine, host: string, folder: string): Promise<void> {
  await sh(`
    mkdir -p ${folder}
    echo '127.0.0.1 ${host}' >>/etc/hosts
    echo 'server { listen 443 ssl; server_name ${host}; root ${folder}; }' >/etc/nginx/conf.d/${host}.conf
    nginx -s reload`);
}

/** An app in ~/app that answers on 127.0.0.1:8080 with its version, and what publishes it to /srv/www. */
export async function makeApp({ sh }: Machine) {
  await sh("mkdir -p app/build; cat >app/build/server.js", 0, appServer);
  const made = await sh(`
    printf 'app: { exec: node server.js, forever: true, listen: 8080, health: "http://127.0.0.1:8080/" }\\n' >app/build/launchify.yml
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

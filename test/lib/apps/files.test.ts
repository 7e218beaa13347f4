// What boatyard up writes on a server.
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Spec } from "../../../lib/apps/app.ts";
import { readAppFile } from "../../../lib/apps/app-file.ts";
import { caddyfileWith, filesOf, releaseFile, siteOf, unitsOf } from "../../../lib/apps/files.ts";
import { launchSchema } from "../../../lib/launch/config.ts";
import { parseConfig } from "../../../lib/config/yaml.ts";
import { freePort } from "../../helpers/ports.ts";
import { runCommand, startCommand } from "../../helpers/run.ts";
import { needsCommand, testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { waitFor } from "../../helpers/wait.ts";
import { join } from "node:path";
import { mkdirSync, writeFileSync } from "node:fs";

const spec: Spec = {
  ...{ name: "shop", branch: "main", hosts: ["shop.example.com", "www.shop.example.com"] },
  ...{ processes: ["web", "mail"], socket: true, overlap: true, keys: ["ssh-ed25519 AAAA ada"] },
  limits: ["MemoryMax=536870912", "CPUQuota=50%"],
};
const record = { spec, port: 21_000 };

test("a Caddyfile of one's own stays, and imports the apps' sites; Debian's example is replaced", () => {
  const fresh = caddyfileWith(undefined);
  assert.match(fresh, "admin unix//var/lib/caddy/admin.sock");
  assert.is(caddyfileWith(":80 {\n\troot * /usr/share/caddy\n\tfile_server\n}\n"), fresh);
  const own = caddyfileWith("example.com {\n\trespond hi\n}\n");
  assert.is(own, "example.com {\n\trespond hi\n}\n\nimport /etc/caddy/boatyard.d/*.caddy\n");
  assert.is(caddyfileWith(own), own);
});

test("a key may use git, and gets no shell; the hook names the app", () => {
  const files = new Map(filesOf(record, "/usr/bin/node").map(({ path, text }) => [path, text]));
  assert.is(
    files.get("/home/shop/.ssh/authorized_keys"),
    'restrict,command="git-shell -c \\"$SSH_ORIGINAL_COMMAND\\"" ssh-ed25519 AAAA ada\n',
  );
  assert.match(files.get("/home/shop/shop.git/hooks/proc-receive") ?? "", "app.mjs receive --name shop\n");
});

test("launchfit takes what is written for it, of a directory and of a release", async () => {
  const own = filesOf(record, "/usr/bin/node").filter(({ path }) => path.endsWith("launchify.yml"));
  assert.is(own.length, 2);
  for (const { path, text } of own) await parseConfig(text, path, launchSchema);
  const written =
    "app: { exec: node a.js, health: /up, workers: { mail: a && b }, env: { NODE_OPTIONS: --x }, grace: 3s }";
  const file = await readAppFile(`${written}\nhooks: { before_symlink: ./migrate }`, { folder: "shop", server: "a.b" });
  const web = (await parseConfig(releaseFile(record, file, "web"), "web", launchSchema)).value;
  assert.match(JSON.stringify(web), "--import=/usr/local/lib/boatyard/listen.mjs --x");
  assert.match(JSON.stringify(web), "http://127.0.0.1:21000/up");
  assert.match(JSON.stringify(web), "; exec node a.js");
  const mail = JSON.stringify((await parseConfig(releaseFile(record, file, "mail"), "mail", launchSchema)).value);
  assert.match(mail, "; a && b");
  assert.not.match(mail, /PORT|migrate|21000/);
});

testUnless(test, needsCommand("caddy"))("a site of files is served by a Caddy of the app's own", async () => {
  const file = await readAppFile("app: { root: public }", { folder: "shop", server: "a.b" });
  assert.is(file.socket, false);
  const folder = tempDir();
  mkdirSync(join(folder, "public"));
  writeFileSync(join(folder, "public/index.html"), "the page\n");
  writeFileSync(join(folder, "secret.txt"), "not of the site\n");
  const port = await freePort();
  const { exec } = (JSON.parse(releaseFile({ ...record, port }, file, "web")) as { app: { exec: string } }).app;
  const server = startCommand(["/bin/sh", "-c", exec], { cwd: folder, env: { PORT: String(port) } });
  const ask = (path: string) => fetch(`http://127.0.0.1:${port}${path}`).catch(() => undefined);
  const page = await waitFor(async () => await ask("/"), { what: "the page" });
  assert.is(await page.text(), "the page\n");
  assert.is((await ask("/../secret.txt"))?.status, 404);
  server.kill();
  await server.exited;
});

testUnless(test, needsCommand("systemd-analyze"))("systemd takes the units, and few powers are left", async () => {
  const folder = tempDir();
  for (const [name, text] of ["web", "mail"].flatMap((kind) => Object.entries(unitsOf(record, kind, "/bin/true"))))
    writeFileSync(join(folder, name), text.replace("User=shop", "User=daemon"));
  const units = ["web.service", "web.socket", "web.path", "mail.service"].map((end) =>
    join(folder, `boatyard-shop_${end}`),
  );
  const { stderr } = await runCommand(["systemd-analyze", "verify", "--man=no", ...units], { expect: 0 });
  assert.is(stderr.replace(/^.*(?:snap|Failed to|Proceeding|SELinux).*\n/gm, ""), "");
});

testUnless(test, needsCommand("caddy"))("Caddy takes the sites", async () => {
  const folder = tempDir();
  const sites = [
    siteOf(record),
    siteOf({ spec: { ...spec, hosts: ["b.example.com"], tls: "internal" }, port: 21_001 }),
  ];
  mkdirSync(join(folder, "data"));
  writeFileSync(join(folder, "Caddyfile"), sites.join("\n"));
  const argv = ["caddy", "adapt", "--adapter", "caddyfile", "--config", join(folder, "Caddyfile")];
  const { stdout } = await runCommand(argv, { expect: 0, env: { HOME: folder } });
  assert.match(stdout, "127.0.0.1:21001");
});

test.run();

// The nginx and Caddy templates before the real servers: TLS by a certificate of one's own, a delivery for
// hook-server, signed requests for slave-server.
import { access, chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { connect } from "node:tls";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isRoot } from "../../lib/exec/users.ts";
import { makeYard, pushPayload, sha, sign, startHooks } from "../helpers/hooks.ts";
import { freePort } from "../helpers/ports.ts";
import { makeRepo } from "../helpers/repos.ts";
import { runCommand, runScript, startCommand, startScript } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { needsCommand, needsLocalhost, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { makeCertificate } from "../helpers/tls.ts";
import { waitFor } from "../helpers/wait.ts";

const read = (name: string) => readFile(join(root, "templates", name), "utf8");
const lacks = (file: string) =>
  access(file).then(
    () => undefined,
    () => `needs ${file}`,
  );
const nginx = "/usr/sbin/nginx";
const caddy = "/usr/bin/caddy";

/** hook-server, slave-server with a secret and a repo, a web folder, and what a proxy before them needs. */
async function makeServers() {
  const dir = tempDir("proxy-");
  await mkdir(join(dir, "www/app-updates"), { recursive: true });
  await writeFile(join(dir, "www/app-updates/VERSION"), "CURRENT 1 a-1.tar.gz\n");
  const secretFile = join(dir, "fleet.secret");
  await writeFile(secretFile, `${"5".repeat(32)}\n`, { mode: 0o600 });
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const base = `file://${dirname(repo.bare)}`;
  await writeFile(join(dir, "slave.yml"), `name: localhost\nsecret_file: ${secretFile}\nbase: ${base}\n`);
  const yard = await makeYard();
  // as hook-server.socket opens them
  const sockets = { deliveries: join(yard, "deliveries.sock"), page: join(yard, "page.sock") };
  const config = join(yard, "hooks.yml");
  const text = (await readFile(config, "utf8")).replace(/^listen: .*/, `listen: ${JSON.stringify(sockets)}`);
  await writeFile(config, text);
  const hooks = await startHooks(yard);
  for (const socket of Object.values(sockets)) await chmod(socket, 0o666);
  const repos = join(dir, "repos");
  const flags = ["--config", join(dir, "slave.yml"), "--repos", repos, "--listen", "127.0.0.1:0"];
  const slave = startScript("slave-server", flags);
  const [, slavePort = ""] = await slave.until(/listens on [^ ]*:(\d+),/);
  return {
    dir,
    secretFile,
    repo,
    hooks,
    /** A template with the addresses of these. */
    fitted: (template: string) =>
      template
        .replaceAll("/run/boatyard/deliveries.sock", sockets.deliveries)
        .replaceAll("/run/boatyard/page.sock", sockets.page),
    slavePort: Number(slavePort),
    served: () => readFile(join(repos, "site/index.html"), "utf8"),
    certificate: await makeCertificate(),
    front: await freePort(),
    front2: await freePort(),
    async stop() {
      await slave.stop();
      await hooks.stop();
    },
  };
}

type Servers = Awaited<ReturnType<typeof makeServers>>;

const curl = (ca: string, ...args: string[]) =>
  runCommand(["curl", "-sS", "--cacert", ca, "--max-time", "20", ...args], { expect: 0 });

/** What a forge sends comes through byte for byte; what nobody shall reach does not. */
async function checkHooks({ hooks, certificate, dir, front }: Servers): Promise<void> {
  const url = `https://localhost:${front}`;
  const body = JSON.stringify({ ...pushPayload("me/site", sha(1)), note: "é".repeat(50_000) });
  await writeFile(join(dir, "body"), body);
  const headers = [
    "content-type: application/json",
    "x-github-event: push",
    `x-hub-signature-256: sha256=${sign(body)}`,
  ];
  const deliver = (path: string, id: string) =>
    curl(
      certificate.ca,
      ...[...headers, `x-github-delivery: ${id}`].flatMap((each) => ["-H", each]),
      ...["--data-binary", `@${join(dir, "body")}`, url + path],
    );
  assert.match((await deliver("/hook", "one")).stdout, /^\{"run":"/);
  assert.match((await deliver("/github/callback", "two")).stdout, /^\{"run":"/);
  const runs = await hooks.idle();
  assert.ok(runs.some((run) => run.state === "succeeded"));
  assert.ok(runs.every((run) => run.sha === sha(1)));
  // curl's own exit code does not count: a refused body may be cut off in the middle
  const status = async (path: string, ...more: string[]) => {
    const show = ["-o", "/dev/null", "-w", "%{http_code}"];
    const argv = ["curl", "-s", "--cacert", certificate.ca, ...show, ...more, url + path];
    return (await runCommand(argv)).stdout;
  };
  assert.is(await status("/healthz"), "200");
  assert.is(await status("/runs"), "404", "no token is set: the route is not there");
  assert.is(await status("/hookah"), "404");
  await runCommand(["truncate", "-s", "26M", join(dir, "large")], { expect: 0 });
  // in which words depends on the proxy, and on who is quicker: it or hook-server
  const refused = await status("/hook", "--data-binary", `@${join(dir, "large")}`);
  assert.not.match(refused, /^2/);
  const version = await curl(certificate.ca, "-i", `${url}/app-updates/VERSION`);
  assert.match(version.stdout, /^cache-control: no-cache\r$/im);
  assert.match(version.stdout, "CURRENT 1 a-1.tar.gz");
}

/**
 * Clients behind the proxy that announce much and send little, or send much that is not signed: genuine deliveries get
 * in beside them, and a refusal comes through although its body was not read.
 */
async function checkHostile({ certificate, front }: Servers): Promise<void> {
  const ca = await readFile(certificate.ca);
  const head = (length: number, signature: string) =>
    `POST /hook HTTP/1.1\r\nhost: localhost:${front}\r\ncontent-type: application/json\r\nx-github-event: push\r\ncontent-length: ${length}\r\n${signature}\r\n`;
  const signed = (body: string) => `x-hub-signature-256: sha256=${sign(body)}\r\n`;
  const open = (text: string) => {
    const socket = connect({ port: front, host: "localhost", ca });
    socket.on("error", () => {});
    socket.write(text);
    return socket;
  };
  const large = 24 * 1024 * 1024;
  const hostile = Array.from({ length: 40 }, (_, n) => {
    const socket = open(`${head(large, n % 2 ? "" : signed(""))}{`);
    if (n % 4 === 0) socket.write("x".repeat(n % 16 === 0 ? large - 1 : 1_000_000));
    const arrived = new Promise<void>((resolve) => {
      for (const event of ["secureConnect", "close"]) socket.once(event, () => resolve());
    });
    return { socket, arrived };
  });
  const send = (body: string, signature: string) =>
    new Promise<string>((resolve) => {
      const socket = open("");
      let answer = "";
      socket.setEncoding("latin1").on("data", (data: string) => {
        answer += data;
        if (/\r\n\r\n/.test(answer)) socket.destroy();
      });
      socket.on("close", () => resolve(answer.slice(0, 12)));
      socket.write(head(body.length, signature) + body);
    });
  // Once the hostile ones are there, and a few at once: this process speaks TLS for all of them, and a proxy gives each
  // ten seconds for its header.
  await Promise.all(hostile.map(({ arrived }) => arrived));
  const answers = new Set<string>();
  for (let wave = 0; wave < 6; wave++) {
    const genuine = Array.from({ length: 5 }, (_, n) => {
      const body = JSON.stringify(pushPayload("me/site", sha(100 + 5 * wave + n)));
      return send(body, signed(body));
    });
    for (const answer of await Promise.all(genuine)) answers.add(answer);
  }
  assert.equal([...answers], ["HTTP/1.1 202"]);
  assert.is(await send("x".repeat(20_000_000), ""), "HTTP/1.1 401");
  for (const { socket } of hostile) socket.destroy();
}

/** The master's whole work through the proxy: a signed request, its job followed to the end, the status. */
async function checkSlave(servers: Servers): Promise<void> {
  const { dir, secretFile, certificate, front2, repo } = servers;
  const list = join(dir, "list");
  await writeFile(list, `https://localhost:${front2}/get/\n`);
  const base = `file://${dirname(repo.bare)}`;
  const update = (args: string[], expect: number) =>
    runScript("server-update", ["site", "--list", list, "--base", base, ...args], {
      env: { XDG_STATE_HOME: dir },
      expect,
    });
  const signed = ["--secret-file", secretFile];
  const trusted = ["--ca", certificate.ca];
  const { stdout } = await update([...signed, ...trusted, "--wait"], 0);
  assert.match(stdout, await repo.git("rev-parse", "HEAD"));
  assert.is(await servers.served(), "one");
  assert.match((await update([...signed, ...trusted, "--status"], 0)).stdout, "main");
  const stranger = await update([...signed, "--retries", "0"], 1);
  assert.match(stranger.stdout, /its certificate is not trusted.*see --ca/);
  const unsigned = await update([...trusted, "--retries", "0"], 1);
  assert.match(unsigned.stdout, "401");
}

testUnless(test, (await lacks(nginx)) ?? needsCommand("curl") ?? needsLocalhost)(
  "nginx with the templates: a delivery is built, a signed update reaches a slave over TLS",
  async () => {
    const servers = await makeServers();
    const { dir, slavePort, certificate, front, front2 } = servers;
    const fitted = async (name: string) =>
      servers
        .fitted(await read(name))
        .replaceAll("127.0.0.1:9998", `127.0.0.1:${slavePort}`)
        .replace("listen 9999 ssl", `listen 127.0.0.1:${front2} ssl`)
        .replaceAll(/\/etc\/letsencrypt\/\S+\/fullchain\.pem/g, certificate.cert)
        .replaceAll(/\/etc\/letsencrypt\/\S+\/privkey\.pem/g, certificate.key)
        .replaceAll("/srv/www", join(dir, "www"));
    for (const name of ["nginx-hooks.conf", "nginx-slave.conf", "nginx-releases.conf"])
      await writeFile(join(dir, name), await fitted(name));
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map((name) => `${name}_temp_path ${join(dir, name)};`)
      .join(" ");
    await writeFile(
      join(dir, "nginx.conf"),
      `${isRoot() ? "user root; " : ""}daemon off; pid ${join(dir, "pid")}; error_log ${join(dir, "error.log")}; events {}
http { access_log off; ${temporary}
  include ${join(dir, "nginx-slave.conf")};
  server { listen 127.0.0.1:${front} ssl; server_name localhost;
    ssl_certificate ${certificate.cert}; ssl_certificate_key ${certificate.key};
    include ${join(dir, "nginx-hooks.conf")}; include ${join(dir, "nginx-releases.conf")}; } }\n`,
    );
    const argv = [nginx, "-p", dir, "-e", join(dir, "error.log"), "-c", join(dir, "nginx.conf")];
    await runCommand([...argv, "-t"], { expect: 0 });
    await through(argv, "SIGQUIT", servers);
  },
);

testUnless(test, (await lacks(caddy)) ?? needsCommand("curl") ?? needsLocalhost)(
  "Caddy with the template: a delivery is built, a signed update reaches a slave over TLS",
  async () => {
    const whole = ["caddy", "validate", "--adapter", "caddyfile", "--config"];
    await runCommand([...whole, join(root, "templates/Caddyfile")], { expect: 0 });
    const servers = await makeServers();
    const { dir, slavePort, certificate, front, front2 } = servers;
    const tls = `tls ${certificate.cert} ${certificate.key}`;
    const text = servers
      .fitted(await read("Caddyfile"))
      .replace("hooks.example.com {", `https://localhost:${front} {\n\t${tls}`)
      .replaceAll(/^# (slave1|\t|\})/gm, "$1")
      .replace("slave1.example.com:9999 {", `https://localhost:${front2} {\n\t${tls}`)
      .replaceAll("127.0.0.1:9998", `127.0.0.1:${slavePort}`)
      .replaceAll("/srv/www", join(dir, "www"));
    assert.match(text, `https://localhost:${front2} {`);
    const file = join(dir, "Caddyfile");
    await writeFile(file, text.replace(/^\tadmin .*$/m, "\tadmin off\n\tauto_https off"));
    const env = ["env", `HOME=${dir}`, `XDG_DATA_HOME=${dir}`, `XDG_CONFIG_HOME=${dir}`];
    await through([...env, caddy, "run", "--config", file], "SIGTERM", servers);
  },
);

async function through(argv: string[], end: NodeJS.Signals, servers: Servers): Promise<void> {
  const { certificate, front } = servers;
  const proxy = startCommand(argv);
  try {
    const ask = ["curl", "-s", "--cacert", certificate.ca, `https://localhost:${front}/healthz`];
    await waitFor(() => runCommand(ask).then(({ code }) => code === 0), {
      what: () => `the proxy:\n${proxy.output()}`,
    });
    await checkHooks(servers);
    await checkHostile(servers);
    await checkSlave(servers);
  } finally {
    await proxy.stop(end);
    await servers.stop();
  }
}

test.run();

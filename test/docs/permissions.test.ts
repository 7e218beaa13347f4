// Every script does a usual piece of work. Under Deno with the permissions that its page names, and says which one is
// missing.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { makeYard } from "../helpers/hooks.ts";
import { makeRepo, writeFiles } from "../helpers/repos.ts";
import { runCommand, type RunResult, runScript, startCommand, startScript } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { goodArchive, publish, publisher, serveFolder } from "../helpers/web-folder.ts";

type Work = {
  args: string[];
  env?: Record<string, string>;
  /** Servers: it works when it has said this. */
  until?: RegExp;
};

const closing: (() => unknown)[] = [];
test.after(async () => {
  for (const close of closing) await close();
});

/** A web server that answers everything in the same way; its port. */
async function serve(status: number, text: string): Promise<number> {
  const server = createServer((_, answer) => answer.writeHead(status).end(text));
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  closing.push(() => (server.close(), server.closeAllConnections()));
  return (server.address() as AddressInfo).port;
}

/** What each script is given to do: a usual case, in new folders. */
const works: Record<string, () => Promise<Work>> = {
  async build() {
    const repo = await makeRepo({
      files: { "build.yml": "stages: [pull, page]\ncommands: { page: echo hi >page }\n" },
    });
    const dir = join(tempDir(), "site");
    await runCommand(["git", "clone", "--quiet", repo.bare, dir], { expect: 0 });
    return { args: [dir] };
  },
  async downloads() {
    const dir = tempDir();
    const port = await serve(200, "a chart");
    await writeFile(join(dir, "manifest.txt"), `http://127.0.0.1:${port}/chart.svg chart.svg\n`);
    return { args: [dir] };
  },
  async uploads() {
    const dir = tempDir();
    const pages = await makeRepo({ files: { "index.html": "old" } });
    await writeFiles(dir, {
      "upload/index.html": "new",
      "uploads.yml": `from: upload\nto:\n  pages: { git: "${pages.url}", branch: pages }\n`,
    });
    return { args: [dir] };
  },
  async logs() {
    const dir = tempDir();
    await writeFile(join(dir, "logs.txt"), "2026-11-20T10:00:00.000Z run | start\n");
    return { args: [dir, "--grep", "start"] };
  },
  async release() {
    const dir = tempDir();
    await writeFiles(dir, { "site/index.html": "page" });
    const key = join(dir, "key.asc");
    const keygen = ["keygen", "--out", key];
    await runCommand([...current.argv(join(root, "scripts/release.ts")), ...keygen], { expect: 0 });
    const what = ["--app", "site", "--version", "1.0", "--from", join(dir, "site")];
    return { args: ["pack", ...what, "--out", join(dir, "web"), "--key", key] };
  },
  async "slave-activate"() {
    const repo = await makeRepo({ files: { "index.html": "one" } });
    const repos = join(tempDir(), "repos");
    return { args: ["site", "--repos", repos, "--base", `file://${dirname(repo.bare)}`] };
  },
  async "slave-server"() {
    const file = join(tempDir(), "slave.yml");
    await writeFile(file, "base: file:///nowhere\n");
    const place = ["--repos", join(tempDir(), "repos"), "--listen", "127.0.0.1:0"];
    return { args: ["--insecure", "--config", file, ...place], until: /listens on/ };
  },
  async "server-update"() {
    const port = await serve(202, "{}");
    const list = join(tempDir(), "slavelist.txt");
    await writeFile(list, `http://127.0.0.1:${port}/get/\n`);
    const repo = await makeRepo({ files: { "index.html": "one" } });
    const args = ["site", "--list", list, "--base", `file://${dirname(repo.bare)}`];
    return { args, env: { XDG_STATE_HOME: tempDir() } };
  },
  async "hook-server"() {
    const dir = await makeYard();
    return { args: ["--config", join(dir, "hooks.yml")], until: /listens on/ };
  },
  async launchfit() {
    const web = await serveFolder(join(tempDir(), "web"));
    closing.push(web.close);
    await mkdir(web.path);
    const who = await publisher();
    await publish(web.path, who, "1.0", { archive: goodArchive("my-app", "1.0") });
    return { args: [web.url, "--key", who.fingerprint, "--dir", join(tempDir(), "app")] };
  },
  async setup() {
    const dir = tempDir();
    return { args: ["server", "--root", dir, "--yes"] };
  },
};

/** The permissions on a script's page: of its line `deno run --allow-… scripts/NAME.ts`. */
async function permissionsOf(name: string): Promise<string[]> {
  const page = await readFile(join(root, `docs/${name}.md`), "utf8");
  const line = new RegExp(`^deno run (.*) scripts/${name}\\.ts`, "m").exec(page);
  assert.ok(line, `docs/${name}.md has a line "deno run --allow-… scripts/${name}.ts"`);
  return (line[1] ?? "").split(" ");
}

/** The script as Deno runs it with these permissions alone. A server is stopped when it works. */
async function run(name: string, permissions: readonly string[], work: Work): Promise<RunResult> {
  const script = join(root, "scripts", `${name}.ts`);
  const argv = [process.execPath, "run", "--no-prompt", ...permissions, script, ...work.args];
  const { env = {} } = work;
  if (!work.until) return await runCommand(argv, { env });
  const server = startCommand(argv, { env });
  const works = await Promise.race([server.until(work.until), server.exited.then(() => undefined)]);
  return works ? await server.stop() : await server.exited;
}

for (const [name, prepare] of Object.entries(works)) {
  if (current.kind === "node")
    test(`${name} does a usual piece of work`, async () => {
      const { args, env = {}, until } = await prepare();
      if (!until) return void (await runScript(name, args, { env, expect: 0 }));
      const server = startScript(name, args, { env });
      await server.until(until);
      assert.is((await server.stop()).code, 0);
    });
  testUnless(test, current.kind !== "deno" && "needs Deno")(
    `${name} needs the permissions on its page, and names one that is missing`,
    async () => {
      const permissions = await permissionsOf(name);
      const all = await run(name, permissions, await prepare());
      assert.is(all.code, 0, all.stderr);
      for (const missing of permissions) {
        const rest = permissions.filter((each) => each !== missing);
        const flag = missing.replace(/=.*/, "");
        const { code, stdout, stderr } = await run(name, rest, await prepare());
        const output = `${name} without ${flag}:\n${stdout}${stderr}`;
        assert.ok(code, output);
        assert.ok(output.includes(`run again with the ${flag} flag`), output);
        assert.not.match(stderr, /^ +at /m, output);
      }
    },
  );
}

test.run();

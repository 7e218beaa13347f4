// The README's first command: from a push to running everywhere, for real, on this machine, in a temporary folder.
// A bare git repository plays the forge, and deliveries are signed as GitHub does; all else are our scripts.
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { createTerminal } from "../lib/cli/terminal.ts";
import { findOnPath } from "../lib/exec/scripts.ts";
import {
  deliverAndWait,
  makeForge,
  push,
  pushPayload,
  runDemo,
  say,
  secretFile,
  startHookServer,
  title,
} from "./demo/delivery.ts";
import { freePort, type World } from "./demo/world.ts";

const { paint, print, table } = createTerminal();
const root = fileURLToPath(new URL("../", import.meta.url));
const repo = "ada/harbour";
const repository = { full_name: repo, default_branch: "main" };
const begun = performance.now();

async function demo(world: World): Promise<void> {
  const { place } = world;
  const steps: string[][] = [];
  /** Does one step of the story and notes how long it took. */
  const timed = async <T>(who: string, what: string, work: () => Promise<T>): Promise<T> => {
    const start = performance.now();
    const result = await work();
    steps.push([who, what, `${((performance.now() - start) / 1000).toFixed(2)} s`]);
    return result;
  };

  title("A forge, a server that builds, two slaves with a shared secret, a publisher's key");
  await makeForge(world, "harbour");
  const secret = await secretFile(place("hook.secret"));
  await secretFile(place("fleet.secret"));
  const web = await world.serve("www");
  const key = JSON.parse(await world.script("release", ["keygen", "--out", "release.asc", "--json"])) as {
    fingerprint: string;
  };
  const slaves = await Promise.all(["slave-a", "slave-b"].map((name) => startSlave(world, name)));
  await writeFile(place("slavelist.txt"), slaves.map((url, at) => `${url}/get/ name=slave-${"ab"[at]}\n`).join(""));
  await writeFile(place("hooks.yml"), hooksFile(place));
  const { url, server } = await startHookServer(world);
  say(`hook-server ${url}/hook, slaves ${slaves.join(" and ")}`);

  // a package comes without litpro: then the same program is pushed as it is
  const [site, source] = world.hasLitpro ? ["site", "project.md"] : ["plain", "src/harbour.js"];
  const kind = world.hasLitpro ? "literate program" : "program";
  title(`A developer pushes a ${kind} with a manifest of downloads`);
  await mkdir(place("www/data"), { recursive: true });
  await writeFile(place("www/data/chart.svg"), `<svg>${"harbour ".repeat(8000)}</svg>\n`);
  await cp(new URL(`demo/${site}`, import.meta.url), place("developer"), { recursive: true });
  await writeFile(place("developer/manifest.txt"), `${web.url}/data/chart.svg#1 chart.svg\n`);
  await writeFile(place("developer/uploads.yml"), await uploadsFile(place));
  await writeFile(place("developer/release.sh"), releaseFile(place));
  const first = await push(world, "Two ships");
  say(`${source}, manifest.txt, uploads.yml, release.sh: commit ${first.slice(0, 7)}`);

  title("A stranger, who knows of it but not the secret");
  const refused = await world.deliver(`${url}/hook`, "a guess", "push", pushPayload(repository, first));
  say(`POST /hook, wrongly signed: ${refused.status} ${refused.text}`);

  title("The forge, which signs: the push is built and published, and both slaves fetch it");
  await timed("hook-server, build", "push 1 built, uploaded, both slaves told", () =>
    deliverAndWait(world, url, secret, "push", pushPayload(repository, first)),
  );
  await timed("slave-activate", "both slaves serve it", () => served(world, first));
  await says(world, "the slaves' copy is the commit", first);

  title("Version 1.0 is released: built from its tag, packed and signed");
  await world.git("developer", "tag", "v1.0");
  await world.git("developer", "push", "--quiet", "origin", "v1.0");
  await timed("release", "1.0 built, packed, signed", () =>
    deliverAndWait(world, url, secret, "release", releasePayload("v1.0")),
  );
  const address = `127.0.0.1:${await freePort()}`;
  await mkdir(place("app"));
  await writeFile(place("app/launchify.yml"), launchFile(address));
  await timed("launchfit", "1.0 verified and installed", () =>
    world.script("launchfit", [`${web.url}/app-updates`, "--key", key.fingerprint, "--dir", "app"]),
  );
  const ask = async () => await (await fetch(`http://${address}/`)).text();
  const launcher = await timed("launchfit", "the app runs", () =>
    world.start("launchfit", ["--dir", "app"], async () => (await ask()) !== ""),
  );
  say(`http://${address} says: ${paint.bold(await ask())}`);

  title("A third ship comes in: a push and a release, and everything follows by itself");
  const program = await readFile(place("developer", source), "utf8");
  await writeFile(place("developer", source), program.replace('"Beagle"]', '"Beagle", "Calypso"]'));
  const second = await push(world, "A third ship");
  await world.git("developer", "tag", "v1.1");
  await world.git("developer", "push", "--quiet", "origin", "v1.1");
  const asked = web.asked();
  await timed("hook-server, build", "push 2 built, uploaded, both slaves told", () =>
    deliverAndWait(world, url, secret, "push", pushPayload(repository, second)),
  );
  say(`downloads asked the server ${web.asked() - asked} times: what is there is not fetched again`);
  await timed("slave-activate", "both slaves serve it", () => served(world, second));
  await timed("release", "1.1 built, packed, signed", () =>
    deliverAndWait(world, url, secret, "release", releasePayload("v1.1")),
  );
  await timed("launchfit", "the running app became 1.1", async () => {
    await world.script("launchfit", ["check", "--dir", "app"]);
    await world.until("the app is 1.1", async () => /Calypso/.test(await ask()), launcher.output);
  });
  say(`http://${address} says: ${paint.bold(await ask())}`);

  await world.script("launchfit", ["stop", "--dir", "app"]);
  const code = await server.stop();
  title(`What happened, and how long each step took (hook-server has ended with ${code})`);
  for (const line of table(steps, { header: ["who", "what", "time"], right: [2] })) say(line);
  if (code !== 0) throw new Error(server.output());
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  print(
    `\n${paint.green("done")} in ${seconds} s; ${world.folder} is removed. For a server of your own: docs/server.md`,
  );
}

async function startSlave(world: World, name: string): Promise<string> {
  const port = await freePort();
  const { place } = world;
  const lines = [
    `name: ${name}`,
    `listen: 127.0.0.1:${port}`,
    `repos: ${place(name)}`,
    `base: file://${place("forge/ada")}`,
    `secret_file: ${place("fleet.secret")}`,
  ];
  await writeFile(place(`${name}.yml`), `${lines.join("\n")}\n`);
  const url = `http://127.0.0.1:${port}`;
  const healthy = async () => (await fetch(`${url}/healthz`)).ok;
  await world.start("slave-server", ["--config", place(`${name}.yml`)], healthy);
  return url;
}

type Place = (...names: string[]) => string;

function hooksFile(place: Place): string {
  const update = `XDG_STATE_HOME=${place("master")} server-update harbour --list ${place("slavelist.txt")} --secret-file ${place("fleet.secret")} --wait`;
  return [
    "repos:",
    `  ${repo}:`,
    `    dir: ${place("server")}`,
    `    secret_file: ${place("hook.secret")}`,
    "    poll: false",
    `    on_success: [${JSON.stringify(update)}]`,
    "",
  ].join("\n");
}

/** To a local folder: by rsync where it is installed, else as a branch of a bare repository. */
async function uploadsFile(place: Place): Promise<string> {
  return (await findOnPath("rsync"))
    ? `from: build\nto:\n  local: { rsync: ${place("published")}/ }\n`
    : `from: build\nto:\n  pages: { git: "file://${place("forge/ada/harbour.git")}", branch: pages }\n`;
}

function releaseFile(place: Place): string {
  return `#!/bin/sh -e
# what a release is: the built files, signed, in the web folder
exec release pack --app harbour --version "\${RELEASE_TAG#v}" --from build --out ${place("www/app-updates")} --key ${place("release.asc")}
`;
}

/** Under Deno the app opens its port itself: only systemd could hand it a socket there. */
function launchFile(address: string): string {
  const isDeno = process.versions["deno"] !== undefined;
  const runtime = `${process.execPath}${isDeno ? " run -A" : ""}`;
  const port = isDeno ? `env: { PORT: ${address.split(":")[1]} }` : `listen: ${address}`;
  return `app:\n  exec: ${runtime} harbour.js serve\n  ${port}\n  health: http://${address}/\n`;
}

/** Waits until both slaves' folders are that commit. */
async function served(world: World, sha: string): Promise<void> {
  await world.until("both slaves serve the commit", async () => {
    const heads = await Promise.all(
      ["slave-a", "slave-b"].map((name) => world.git(join(name, "harbour"), "rev-parse", "HEAD")),
    );
    return heads.every((head) => head === sha);
  });
}

async function says(world: World, what: string, sha: string): Promise<void> {
  const head = await world.git("slave-b/harbour", "log", "-1", "--format=%h %s");
  say(`${what}: ${paint.bold(head)}${sha.startsWith(head.split(" ")[0] ?? "-") ? "" : " (another one!)"}`);
}

function releasePayload(tag: string) {
  const release = {
    tag_name: tag,
    name: tag,
    draft: false,
    prerelease: false,
    html_url: "",
    target_commitish: "main",
  };
  return { action: "published", release, repository };
}

void runDemo(root, demo);

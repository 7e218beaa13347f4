// Kill -9 at random instants of a run with version changes among its files, then look.
import { createHash } from "node:crypto";
import { cpSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { file, startBadServer } from "./bad-server.ts";
import { makeSite, type Site } from "./downloads.ts";
import { startScript } from "./run.ts";
import { removeTree } from "./tmp.ts";

/** `kills` runs over `files` files, each killed and run again: the end is that of an undisturbed run. */
export async function killAtRandom({ kills, files }: { kills: number; files: number }): Promise<void> {
  const server = await startBadServer();
  // every third file gets a second version, every third is new in the second run, the rest stay
  const names = Array.from({ length: files }, (_, index) => `d${index % 5}/${index}.bin`);
  const second = (index: number) => (index % 3 === 0 ? 2 : 1);
  const body = (name: string, version: number) => {
    // now and then a file that is too large for memory, so that it grows on the disk
    const size = name.length % 2 === 0 && name.includes("7") ? 1_500_000 : 4000;
    const seed = createHash("sha512").update(`${name} ${version}`).digest();
    return Buffer.alloc(size, seed);
  };
  for (const name of names)
    for (const version of [1, 2])
      server.on(
        `/${version}/${name}`,
        file(
          () => body(name, version),
          () => `"${version}"`,
        ),
      );
  const line = (name: string, version: number) => `${server.url}/${version}/${name}#${version} ${name}`;
  const secondManifest = names.map((name, index) => line(name, second(index)));
  try {
    const before = makeSite();
    before.manifest(...names.filter((_, index) => index % 3 !== 1).map((name) => line(name, 1)));
    await before.run(["--quiet"], { expect: 0 });
    const copy = (): Site => {
      const site = makeSite();
      cpSync(before.dir, site.dir, { recursive: true, preserveTimestamps: true });
      site.manifest(...secondManifest);
      return site;
    };
    const undisturbed = copy();
    const started = Date.now();
    await undisturbed.run(["--quiet"], { expect: 0 });
    const length = Date.now() - started;
    const wanted = undisturbed.state();

    let interrupted = 0;
    for (let kill = 0; kill < kills; kill++) {
      const site = copy();
      const running = startScript("downloads", [site.dir, "--quiet"]);
      // the first part of a run is the runtime's own start
      await sleep(length * (0.25 + 0.75 * Math.random()));
      running.kill("SIGKILL");
      if ((await running.exited).signal === "SIGKILL") interrupted += 1;
      names.forEach((name, index) => {
        const there = read(site, name);
        const versions = index % 3 === 0 ? [1, 2] : [1];
        const known =
          there === undefined ? index % 3 === 1 : versions.some((version) => body(name, version).equals(there));
        assert.ok(known, `kill ${kill}: ${name} holds neither version`);
        if (index % 3 !== 0) return;
        const old = read(site, `old/${name.replace(".bin", ".1.bin")}`);
        const kept = [there, old].some((bytes) => bytes && body(name, 1).equals(bytes));
        assert.ok(kept, `kill ${kill}: version 1 of ${name} is lost`);
      });
      await site.run(["--quiet"], { expect: 0 });
      assert.is(site.state(), wanted, `kill ${kill}: another end than undisturbed`);
      // all of them at the end would be ten thousand files: too many for the moment that a test file has to end
      removeTree(site.dir);
    }
    console.log(`${interrupted} of ${kills} runs were killed in time`);
  } finally {
    await server.stop();
  }
}

function read(site: Site, name: string): Buffer | undefined {
  try {
    return readFileSync(site.path(name));
  } catch {
    return undefined;
  }
}

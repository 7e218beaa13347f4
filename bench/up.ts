// boatyard up on a bare Debian that is booted for it: seconds of each step, of a push, and requests that failed meanwhile.
// What apt and npm would bring lies on this machine. No peer runs here: kamal and piku need Docker, or a server of their
// own kind. As root, after `npm run bundle`; argument: pushes.
import process from "node:process";
import { launchify, load, mail, noLaptop, server, world } from "../test/helpers/laptop.ts";

process.env["BOATYARD_TEST_DIST"] = "1";
const pushes = Number(process.argv[2] ?? 10);
if (noLaptop !== undefined) {
  console.error(noLaptop);
  process.exit(1);
}

const { laptop, stop } = await world();
const timed = async (work: () => Promise<unknown>) => {
  const from = performance.now();
  await work();
  return (performance.now() - from) / 1000;
};
try {
  await laptop.commit({ "server.mjs": server("v0"), "mail.mjs": mail, "launchify.yml": launchify });
  console.log(`commands 1, lines of config ${launchify.trim().split("\n").length}`);
  const first = await laptop.up("root@app.test", "--yes");
  if (first.code !== 0) throw new Error(first.stderr);
  for (const [, what, time] of first.stdout.matchAll(/done +(.+?) {2}(\S.*)$/gm)) console.log(`${time}  ${what}`);
  console.log(/https:\S* after .*/.exec(first.stdout)?.[0]);
  console.log(`${(await timed(() => laptop.up())).toFixed(1)} s  a second up, which finds nothing to do`);

  const end = load(laptop);
  const seconds: number[] = [];
  for (let at = 1; at <= pushes; at += 1) {
    await laptop.commit({ "server.mjs": server(`v${at}`) });
    seconds.push(
      await timed(async () => {
        const { code, stderr } = await laptop.git("push", "boatyard", "main");
        if (code !== 0) throw new Error(stderr);
      }),
    );
  }
  const undo = await timed(() => laptop.app(["undo"]));
  const { good, bad, max } = await end();
  console.log(`${seconds.map((each) => each.toFixed(1)).join(" ")} s  ${pushes} pushes, 10 s of each the watch`);
  console.log(`${undo.toFixed(1)} s  undo`);
  console.log(`${good + bad.length} requests, ${bad.length} failed, ${max} ms at most`);
} finally {
  await stop();
}

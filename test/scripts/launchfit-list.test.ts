// launchfit list --all: the apps of a machine in one table, with one exit code.
import { chmodSync, chownSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { deploy, webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { runCommand, runScript, scriptArgv } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { locked, makeUser, removeUser } from "../helpers/users.ts";
import { waitFor } from "../helpers/wait.ts";

const publisher = await makePublisher();
await publisher.publish("1", webApp("1"));
test.after(() => publisher.close());

type Row = Record<string, unknown> & { directory: string };

/** What is listed of these directories: others' apps may run on this machine. */
async function listed(folders: string[], ...args: string[]) {
  const result = await runScript("launchfit", ["list", "--all", "--json", ...args]);
  const rows = JSON.parse(result.stdout) as Row[];
  return { rows: folders.map((folder) => rows.find((row) => row.directory === folder)), result };
}

test("those that run are found by themselves; those that do not, or have a long path, when they are named", async () => {
  const one = await deploy(publisher);
  const long = await deploy(publisher, { folder: join(tempDir(), `a b ${"x".repeat(90)}`) });
  const stopped = await deploy(publisher);
  const empty = tempDir();
  const running = [await one.launch(), await long.launch()];
  await waitFor(async () => (await one.ask()) === "1" && (await long.ask()) === "1");
  const folders = [one.folder, long.folder, stopped.folder, empty];
  assert.equal((await listed(folders)).rows.slice(1), [undefined, undefined, undefined]);
  const { rows } = await listed(folders, long.folder);
  for (const row of rows.slice(0, 2)) {
    const { app, version, state, uptime, memory, code } = (row ?? {}) as Partial<Row>;
    assert.equal({ app, version, state, code }, { app: "my-app", version: "1", state: "running", code: 0 });
    assert.ok(Number(uptime) > 0);
    assert.ok(Number(memory) > 10_000_000 && Number(memory) < 500_000_000, String(memory));
  }
  assert.equal(rows.slice(2), [undefined, undefined]);

  const named = await listed(folders, stopped.folder, empty, one.folder, long.folder);
  assert.equal(
    named.rows.map((row) => [row?.["app"], row?.["state"], row?.["code"]]),
    [
      ["my-app", "running", 0],
      ["my-app", "running", 0],
      ["my-app", "not running", 1],
      [undefined, "not running", 1],
    ],
  );
  assert.is(named.result.code, 1);
  const table = await runScript("launchfit", ["list", "--all", stopped.folder], {
    env: { NO_COLOR: "1", FORCE_COLOR: "1" },
  });
  assert.match(table.stdout, /^app +version +state +uptime +memory +directory\n/);
  assert.ok(table.stdout.includes(`  ${one.folder}\n`), table.stdout);
  assert.not.match(table.stdout, "\u001b");
  await Promise.all(running.map((each) => each.stop()));
  assert.equal((await listed(folders)).rows, [undefined, undefined, undefined, undefined]);
});

test("releases with too many files to count in a moment hold no status up", async () => {
  const app = await deploy(publisher);
  const bin = tempDir();
  writeFileSync(join(bin, "du"), "#!/bin/sh\nexec sleep 1000\n", { mode: 0o755 });
  const { stdout } = await runScript("launchfit", ["status", "--json", "--dir", app.folder], {
    env: { PATH: `${bin}:${process.env["PATH"]}` },
  });
  const status = JSON.parse(stdout) as Row;
  assert.is(status["version"], "1");
  assert.is(status["disk"], undefined);
  assert.ok(Number((JSON.parse((await app.tell("status", "--json")).stdout) as Row)["disk"]) > 0);
});

test("an app that is ill, one whose updates are refused, and a launchfit that hangs are told apart", async () => {
  const bad = join(tempDir(), "ill");
  const ill = await deploy(publisher, {
    app: [`health: { command: "test ! -e ${bad}", every: 100ms, failures: false }`],
  });
  const own = await makePublisher();
  await own.publish("1", webApp("1"));
  const refused = await deploy(own);
  const hung = await deploy(publisher);
  const running = [await ill.launch(), await refused.launch(), await hung.launch()];
  // one that has never been well counts as starting for a while
  await waitFor(async () => (await ill.status())["health"] === "well");
  writeFileSync(bad, "");
  await waitFor(async () => /exit code 1/.test(String((await ill.status())["health"])));
  writeFileSync(join(own.folder, "VERSION.sig"), "nonsense");
  assert.is((await refused.control("check")).code, 4);
  running[2]?.kill("SIGSTOP");
  const [{ rows }, asked] = await Promise.all([listed([ill.folder, refused.folder, hung.folder]), hung.tell("status")]);
  running[2]?.kill("SIGCONT");
  assert.equal(
    rows.map((row) => row?.["code"]),
    [1, 4, 1],
  );
  assert.match(String(rows[0]?.["problem"]), /the health command ended with exit code 1/);
  assert.match(String(rows[1]?.["problem"]), /VERSION\.sig/);
  assert.match(String(rows[2]?.["problem"]), /^launchfit does not answer; if it is stopped/);
  assert.match(asked.stderr, "launchfit does not answer; if it is stopped, kill -CONT it");
  assert.is(asked.code, 1);
  await Promise.all(running.map((each) => each.stop()));
  await own.close();
});

test("what a socket answers that is not launchfit's cannot act on a terminal, nor hold the list up", async () => {
  const folder = tempDir();
  mkdirSync(join(folder, ".launchfit"));
  const servers = [];
  for (const [name, answer] of [
    ["evil", `{"ok":true,"state":"\\u001b[2Jrunning","version":"\\u009b31m1","app":7,"uptime":"x"}\n`],
    ["endless", "x".repeat(8 * 1024 * 1024)],
  ] as const) {
    const path = join(folder, name, ".launchfit");
    mkdirSync(path, { recursive: true });
    const server = createServer((socket) => void socket.on("error", () => {}).write(answer));
    await new Promise<void>((resolve) => server.listen(join(path, "socket"), resolve));
    servers.push(server);
  }
  const { stdout } = await runScript("launchfit", ["list", "--all"]);
  const lines = stdout.split("\n").filter((line) => line.includes(folder));
  assert.is(lines.length, 2, stdout);
  assert.not.match(lines.join(" "), /[\u0000-\u001f\u007f-\u009f]/);
  for (const server of servers) server.close();
});

testUnless(test, process.getuid?.() === 0 ? undefined : "needs root")(
  "an app that setup made an account for, and one of a unit, are found while they are down; a user sees those that may be asked",
  async () => {
    const user = await makeUser();
    try {
      await locked(["usermod", "--comment", "Boatyard app my-app", user.name]);
      const unit = await deploy(publisher);
      const bin = tempDir();
      // where no systemd runs, this answers for systemctl
      writeFileSync(
        join(bin, "systemctl"),
        `#!/bin/sh\ncase "$1" in list-units) echo "launchfit@x.service loaded failed failed x" ;; show) echo ${unit.folder} ;; esac\n`,
        { mode: 0o755 },
      );
      const path = `${bin}:${process.env["PATH"]}`;
      const { stdout } = await runScript("launchfit", ["list", "--all", "--json"], {
        env: { PATH: path },
      });
      const rows = JSON.parse(stdout) as Row[];
      for (const folder of [user.home, unit.folder])
        assert.is(rows.find((row) => row.directory === folder)?.["state"], "not running", stdout);

      // as a container's volume, whose owner has no account
      const volume = join(user.home, "volume");
      mkdirSync(volume);
      chownSync(volume, 54_321, 54_321);
      chmodSync(user.home, 0o755);
      const owned = await runScript("launchfit", ["status", "--json"], { cwd: volume });
      assert.is((JSON.parse(owned.stdout) as Row)["state"], "not running", owned.stderr);
      assert.is((JSON.parse(owned.stdout) as Row).directory, volume);

      // its configuration is read with its owner's rights, and acts on nobody's terminal
      const settings = join(volume, "launchify.yml");
      const config = () => runScript("launchfit", ["config"], { cwd: volume });
      writeFileSync(settings, 'app: { name: my-app, exec: "one\\u009b31mtwo" }\n');
      const shown = await config();
      assert.is(shown.code, 0, shown.stderr);
      assert.match(shown.stdout, /app\.exec +"one[^\u009b]*two" /);
      rmSync(settings);
      writeFileSync(join(bin, "closed.yml"), "app: { name: closed }\n", { mode: 0o600 });
      symlinkSync(join(bin, "closed.yml"), settings);
      const closedToOwner = await config();
      assert.is(closedToOwner.code, 1, closedToOwner.stdout);
      assert.match(closedToOwner.stderr, /reading .*volume as user 54321 fails/);
      rmSync(settings);

      const folders = ["a", "b", "c"].map((name) => join(user.home, name));
      for (const folder of folders) {
        mkdirSync(folder);
        chownSync(folder, user.uid, user.gid);
      }
      const several = await runScript("launchfit", ["list", "--json", ...folders], { env: { PATH: path } });
      assert.equal(
        (JSON.parse(several.stdout) as Row[]).map(({ directory, state, code }) => [directory, state, code]),
        folders.map((folder) => [folder, "not running", 1]),
      );

      // what the user puts there in the place of files holds up nobody but himself
      await locked([
        "runuser",
        "-u",
        user.name,
        "--",
        "sh",
        "-c",
        "cd; mkdir .launchfit; mkfifo launchify.yml .launchfit/launcher.json",
      ]);
      const { stdout: hostile } = await runCommand(
        ["timeout", "-k", "1", "60", ...scriptArgv("launchfit"), "list", "--all", "--json"],
        { env: { PATH: path } },
      );
      const stuck = (JSON.parse(hostile) as Row[]).find(({ directory }) => directory === user.home);
      assert.is(stuck?.["state"], "unknown", hostile);
      assert.match(String(stuck?.["problem"]), /reading .* as user \d+ does not come to an end/);

      // the user's own view: what root runs is not asked, what is named is said to be closed
      await locked(["usermod", "--comment", "", user.name]);
      const running = await unit.launch();
      const asUser = (...args: string[]) => {
        const id = [`--reuid=${user.uid}`, `--regid=${user.gid}`, "--clear-groups"];
        return runCommand(["setpriv", ...id, ...scriptArgv("launchfit"), "list", "--all", ...args], {
          cwd: "/",
          env: { HOME: user.home },
        });
      };
      const none = await asUser();
      assert.is(none.code, 0, none.stderr + none.stdout);
      assert.match(none.stderr, "no app was found");
      const closed = await asUser(unit.folder);
      assert.is(closed.code, 1);
      assert.match(closed.stdout, /unknown .*cannot ask launchfit at .*EACCES/);
      await running.stop();
    } finally {
      await removeUser(user);
    }
  },
);

test.run();

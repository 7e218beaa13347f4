// The attacks that the TUF specification names (theupdateframework.github.io/specification, 1.5.2), made concrete:
// each is refused with exit 4, installs nothing, and leaves the old version as it is. Most run in this process, since
// a start costs more than an attack; the last ones show that the script says and exits the same.
import { chmodSync, chownSync, cpSync, existsSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { formatVersionFile, type VersionFile } from "../../lib/web-folder/version-file.ts";
import { exitCodeOf } from "../../lib/core/errors.ts";
import { type InstallOptions, installInto } from "../../lib/launch/launch.ts";
import { runCommand, runScript, scriptArgv } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { tarGz } from "../helpers/tar.ts";
import { tempDir } from "../helpers/tmp.ts";
import {
  goodArchive,
  installedVersion,
  keepCopy,
  publish,
  publisher,
  serveFolder,
  type ServedFolder,
  writeVersionText,
} from "../helpers/web-folder.ts";

const good = await publisher();
const evil = await publisher();
const served: ServedFolder[] = [];
test.after(async () => {
  for (const server of served) await server.close();
});

/** A later time than `steps` releases before, within what clocks may differ. */
const later = (steps: number) => new Date(Date.now() + steps * 10_000);

type Result = { code: number; stderr: string };

type Scene = {
  web: ServedFolder;
  deploy: string;
  launchfit: (options?: Partial<InstallOptions>) => Promise<Result>;
  /** Must be refused with this reason, and leave version 1 as it is. */
  refused: (reason: RegExp, options?: Partial<InstallOptions>) => Promise<void>;
};

/** Version 1 is published, and installed unless `fresh`. */
async function scene(options: { fresh?: boolean; versionSigned?: boolean } = {}): Promise<Scene> {
  const { fresh = false, versionSigned = true } = options;
  const web = await serveFolder(join(tempDir("web-"), "w"));
  served.push(web);
  const deploy = tempDir("deploy-");
  await publish(web.path, good, "1", { versionSigned });
  const launchfit: Scene["launchfit"] = async (options = {}) => {
    let stderr = "";
    const note = (line: string) => void (stderr += `${line}\n`);
    try {
      await installInto(deploy, web.url, { key: good.fingerprint, note, ...options });
      return { code: 0, stderr };
    } catch (error) {
      if (exitCodeOf(error) === undefined) throw error;
      return { code: exitCodeOf(error) ?? 0, stderr: `${stderr}${(error as Error).message}` };
    }
  };
  if (!fresh) assert.is((await launchfit()).code, 0);
  const before = fresh ? undefined : "1";
  return {
    web,
    deploy,
    launchfit,
    async refused(reason, options) {
      const { code, stderr } = await launchfit(options);
      assert.match(stderr, reason);
      assert.is(code, 4, stderr);
      assert.is(await installedVersion(deploy), before);
      assert.equal(readdirSync(join(deploy, "releases")), fresh ? [] : ["my-app-1"]);
      assert.equal(readdirSync(join(deploy, ".launchfit", "temporary")), []);
    },
  };
}

for (const versionSigned of [true, false]) {
  const how = versionSigned ? "" : " (a folder without VERSION.sig)";

  test(`arbitrary software: an archive that another key signed${how}`, async () => {
    const { web, refused } = await scene({ versionSigned });
    const file = await publish(web.path, good, "2", { versionSigned, date: later(1) });
    const archive = goodArchive("my-app", "evil");
    await writeFile(join(web.path, file), archive);
    await writeFile(join(web.path, `${file}.sig`), await evil.sign(archive));
    await refused(versionSigned ? /bytes|sha256|endless/ : /not by/);
  });

  test(`arbitrary software: other bytes under a good signature${how}`, async () => {
    const { web, refused } = await scene({ versionSigned });
    const file = await publish(web.path, good, "2", { versionSigned, date: later(1) });
    const bytes = await readFile(join(web.path, file));
    bytes[bytes.length >> 1]! ^= 1;
    await writeFile(join(web.path, file), bytes);
    await refused(versionSigned ? /sha256/i : /not those that were signed/);
  });

  test(`arbitrary software: no signature${how}`, async () => {
    const { web, refused } = await scene({ versionSigned });
    const file = await publish(web.path, good, "2", { versionSigned, date: later(1) });
    rmSync(join(web.path, `${file}.sig`));
    await refused(/has no signature/);
  });

  test(`rollback: yesterday's folder, well signed${how}`, async () => {
    const { web, deploy, launchfit } = await scene({ versionSigned });
    const old = await keepCopy(web.path);
    await publish(web.path, good, "2", { versionSigned, date: later(1) });
    assert.is((await launchfit()).code, 0);
    cpSync(old, web.path, { recursive: true });
    const { code, stderr } = await launchfit();
    assert.match(stderr, /rollback/);
    assert.is(code, 4);
    assert.is(await installedVersion(deploy), "2");
    // also when everything but the memory of it is gone
    rmSync(join(deploy, "releases", "my-app-1"), { recursive: true });
    assert.is((await launchfit()).code, 4);
    assert.is((await launchfit({ allowDowngrade: true })).code, 0);
    assert.is(await installedVersion(deploy), "1");
  });

  test(`wrong software: another app of the same publisher${how}`, async () => {
    const { web, refused } = await scene({ versionSigned });
    await publish(web.path, good, "2", { versionSigned, app: "other-app", date: later(1) });
    await refused(/wrong software/);
  });

  test(`wrong software: another app's archive under this app's name${how}`, async () => {
    const { web, refused } = await scene({ versionSigned });
    await publish(web.path, good, "2", {
      versionSigned,
      archive: goodArchive("other-app", "2"),
      date: later(1),
    });
    await refused(/holds the app other-app, not my-app \(wrong software\)/);
  });

  test(`one version with other bytes${how}`, async () => {
    const { web, deploy, refused } = await scene({ versionSigned });
    await publish(web.path, good, "1", {
      versionSigned,
      archive: goodArchive("my-app", "1 again"),
      date: later(1),
    });
    if (versionSigned) {
      await refused(/accepted before with other bytes/);
      return;
    }
    // nothing in such a folder says so before the archive is fetched; what is installed stays
    assert.is(await installedVersion(deploy), "1");
  });

  test(`endless data: an archive that never ends${how}`, async () => {
    const { web, refused, deploy } = await scene({ versionSigned });
    const file = await publish(web.path, good, "2", { versionSigned, date: later(1) });
    if (!versionSigned)
      await writeFile(
        join(deploy, "launchify.yml"),
        (await readFile(join(deploy, "launchify.yml"), "utf8")).replace("updates:", "updates:\n  max_size: 1M"),
      );
    web.on((_request, response, name) => {
      if (name !== file) return false;
      response.writeHead(200);
      const timer = setInterval(() => response.write(Buffer.alloc(256 * 1024)), 1);
      response.on("close", () => clearInterval(timer));
      return true;
    });
    await refused(/endless data/);
  });
}

test("one version with other bytes: a second one under the name of the first, in a folder without VERSION.sig", async () => {
  const { web, deploy, launchfit } = await scene({ versionSigned: false });
  await publish(web.path, good, "2", { versionSigned: false, date: later(1) });
  assert.is((await launchfit()).code, 0);
  await publish(web.path, good, "1", {
    versionSigned: false,
    archive: goodArchive("my-app", "1 again"),
    date: later(2),
  });
  rmSync(join(deploy, "releases", "my-app-1"), { recursive: true });
  const { code, stderr } = await launchfit();
  assert.match(stderr, /accepted before with other bytes/);
  assert.is(code, 4);
  assert.is(await installedVersion(deploy), "2");
});

test("a forged VERSION passes no older archive off as a newer version, in a folder without VERSION.sig", async () => {
  const { web, deploy, launchfit, refused } = await scene({ versionSigned: false });
  const forge = (text: string) => writeFile(join(web.path, "VERSION"), text);
  await forge("CURRENT 1.1 my-app-1.tar.gz\n");
  await refused(/my-app-1\.tar\.gz is not named as version 1\.1/);
  await forge("CURRENT 1.1 my-app-1.1.tar.gz\n");
  for (const end of ["", ".sig"])
    cpSync(join(web.path, `my-app-1.tar.gz${end}`), join(web.path, `my-app-1.1.tar.gz${end}`));
  await refused(/time of the signature, of version 1,/);
  await publish(web.path, good, "1.1", { versionSigned: false, date: later(1) });
  assert.is((await launchfit()).code, 0);
  assert.is(await installedVersion(deploy), "1.1");
});

test("a signed VERSION without SHA256 does not let an archive pass for another either", async () => {
  const edit = ({ current: [line] }: VersionFile) => void delete line!.sha256;
  const { web, launchfit } = await scene({ fresh: true });
  const older = goodArchive("my-app", "0.9");
  const olderSignature = await good.sign(older);
  await publish(web.path, good, "1", { edit, date: later(1) });
  assert.is((await launchfit()).code, 0);
  const file = await publish(web.path, good, "1.1", {
    date: later(2),
    edit: ({ current: [line] }) => {
      delete line!.sha256;
      delete line!.size;
    },
  });
  const put = async (bytes: Buffer, signature: Uint8Array) => {
    await writeFile(join(web.path, file), bytes);
    await writeFile(join(web.path, `${file}.sig`), signature);
  };
  const one = (name: string) => readFile(join(web.path, name));
  await put(await one("my-app-1.tar.gz"), await one("my-app-1.tar.gz.sig"));
  assert.match((await launchfit()).stderr, /time of the signature, of version 1,/);
  await put(older, olderSignature);
  assert.match((await launchfit()).stderr, /rollback/);
});

test("a record without a signed SHA256 yields to one that is signed", async () => {
  const { web, deploy, launchfit } = await scene({ fresh: true, versionSigned: false });
  // an archive that this machine never saw, under a name that is not its own
  const old = goodArchive("my-app", "0.9");
  await publish(web.path, good, "1.1", { versionSigned: false, archive: old });
  assert.is((await launchfit()).code, 0);
  await publish(web.path, good, "1.1", { date: later(1) });
  assert.is((await launchfit()).code, 0);
  assert.is(await installedVersion(deploy), "1.1");
});

test("indefinite freeze: a VERSION past its EXPIRES is no news", async () => {
  const { web, refused } = await scene();
  await publish(web.path, good, "2", { date: later(1), expires: new Date(Date.now() - 60_000) });
  await refused(/expired at .* \(freeze\)/);
});

test("indefinite freeze: an unsigned VERSION cannot prolong itself", async () => {
  const { web, refused } = await scene();
  const text = await readFile(join(web.path, "VERSION"), "utf8");
  await writeFile(join(web.path, "VERSION"), text.replace(/^EXPIRES .*$/m, "EXPIRES 2999-01-01T00:00:00Z"));
  await refused(/not those that were signed/);
});

test("VERSION.sig taken away: once seen, it is required for ever", async () => {
  const { web, refused } = await scene();
  await publish(web.path, good, "2", { date: later(1) });
  rmSync(join(web.path, "VERSION.sig"));
  await refused(/VERSION\.sig is missing/);
});

test("a VERSION that another key signed", async () => {
  const { web, refused } = await scene();
  const text = await readFile(join(web.path, "VERSION"), "utf8");
  await writeVersionText(web.path, evil, text);
  await refused(/not by/);
});

test("a KEY.asc that was exchanged does not move the pin", async () => {
  const { web, deploy, refused } = await scene();
  await publish(web.path, evil, "2", { date: later(1) });
  await refused(/not by/);
  assert.match(await readFile(join(deploy, "launchify.yml"), "utf8"), good.fingerprint);
});

test("a release cannot bring its own pin", async () => {
  const { web, deploy, launchfit } = await scene();
  const archive = tarGz(
    {
      name: "launchify.yml",
      content: `app:\n  name: my-app\nupdates:\n  gpg:\n    key: ${evil.fingerprint}\n`,
    },
    { name: "version.txt", content: "2" },
  );
  await publish(web.path, good, "2", { archive, date: later(1) });
  assert.is((await launchfit()).code, 0);
  await publish(web.path, evil, "3", { date: later(2) });
  const { code, stderr } = await launchfit();
  assert.match(stderr, /not by/);
  assert.is(code, 4);
  assert.is(await installedVersion(deploy), "2");
});

test("endless data: a VERSION that never ends", async () => {
  const { web, refused } = await scene();
  web.on((_request, response, name) => {
    if (name !== "VERSION") return false;
    response.writeHead(200);
    const timer = setInterval(() => response.write("CURRENT ".repeat(4000)), 1);
    response.on("close", () => clearInterval(timer));
    return true;
  });
  await refused(/endless data/);
});

test("endless data: a lying length", async () => {
  const { web, refused } = await scene();
  const file = await publish(web.path, good, "2", { date: later(1) });
  const bytes = await readFile(join(web.path, file));
  web.on((_request, response, name) => {
    if (name !== file) return false;
    response.writeHead(200, { "content-length": bytes.length + 5000 });
    response.end(Buffer.concat([bytes, Buffer.alloc(5000)]));
    return true;
  });
  await refused(/endless data/);
});

test("endless data: a SIZE that is too small for its archive", async () => {
  const { web, refused } = await scene();
  await publish(web.path, good, "2", {
    date: later(1),
    edit: (file) => {
      file.current[0]!.size = 100;
    },
  });
  await refused(/endless data/);
});

test("mix-and-match: an older archive under a newer VERSION", async () => {
  const { web, refused } = await scene();
  const file = await publish(web.path, good, "2", { date: later(1) });
  cpSync(join(web.path, "my-app-1.tar.gz"), join(web.path, file));
  cpSync(join(web.path, "my-app-1.tar.gz.sig"), join(web.path, `${file}.sig`));
  await refused(/sha256/i);
});

test("mix-and-match: an older archive under a newer name, in a folder without VERSION.sig", async () => {
  const { web, launchfit, deploy } = await scene({ versionSigned: false });
  const old = goodArchive("my-app", "0.9");
  const oldSignature = await good.sign(old, { date: new Date() });
  await publish(web.path, good, "2", { versionSigned: false, date: later(2) });
  assert.is((await launchfit()).code, 0);
  const file = await publish(web.path, good, "3", { versionSigned: false, date: later(3) });
  await writeFile(join(web.path, file), old);
  await writeFile(join(web.path, `${file}.sig`), oldSignature);
  const { code, stderr } = await launchfit();
  assert.match(stderr, /rollback/);
  assert.is(code, 4);
  assert.is(await installedVersion(deploy), "2");
});

test("mix-and-match: a name that its signature does not bear", async () => {
  const { web, refused } = await scene({ versionSigned: false });
  const file = await publish(web.path, good, "2", { versionSigned: false, date: later(1) });
  const archive = await readFile(join(web.path, file));
  const notations = { "file@boatyard": "my-app-0.1.tar.gz" };
  const signature = await good.sign(archive, { notations, date: later(1) });
  await writeFile(join(web.path, `${file}.sig`), signature);
  await refused(/was signed as my-app-0\.1\.tar\.gz, it is another archive/);
});

test("extraneous files: what VERSION does not name is never asked for", async () => {
  const { web, refused } = await scene({ fresh: true });
  await publish(web.path, good, "2", {
    date: later(1),
    archive: tarGz({ name: "../../extra", content: "x" }),
  });
  await writeFile(join(web.path, "extra.tar.gz"), "x");
  await refused(/leads out of the archive/);
  const names = ["VERSION", "VERSION.sig", "KEY.asc", "my-app-2.tar.gz", "my-app-2.tar.gz.sig"];
  assert.ok(
    web.asked.every((name) => names.includes(name)),
    web.asked.join(),
  );
});

for (const slow of ["VERSION", "my-app-2.tar.gz"]) {
  test(`slow retrieval: ${slow} drop by drop ends with --timeout`, async () => {
    const { web, refused } = await scene();
    await publish(web.path, good, "2", { date: later(1) });
    web.on((_request, response, name) => {
      if (name !== slow) return false;
      response.writeHead(200);
      const timer = setInterval(() => response.write("C"), 50);
      response.on("close", () => clearInterval(timer));
      return true;
    });
    await refused(/slow retrieval/, { timeout: 500 });
  });
}

test("slow retrieval: a server that never answers ends with --timeout", async () => {
  const { web, refused } = await scene();
  web.on(() => true);
  await refused(/slow retrieval/, { timeout: 500 });
});

test("a malicious mirror beside good ones neither harms nor hides", async () => {
  const { web, deploy, launchfit } = await scene();
  const old = await keepCopy(web.path);
  const frozen = await serveFolder(old);
  const rubbish = await serveFolder(tempDir("rubbish-"));
  served.push(frozen, rubbish);
  await writeFile(join(rubbish.path, "VERSION"), "<html>");
  const strange = await serveFolder(join(tempDir("strange-"), "w"));
  served.push(strange);
  await publish(strange.path, evil, "9", { date: later(3) });
  const file = await publish(web.path, good, "2", { date: later(1) });
  const yml = await readFile(join(deploy, "launchify.yml"), "utf8");
  const servers = [strange, rubbish, frozen, web].map(({ url }) => url);
  await writeFile(join(deploy, "launchify.yml"), yml.replace(/server: .*/, `server: [${servers.join(", ")}]`));
  // one has the right VERSION, and other bytes
  strange.on((_request, response, name) => {
    if (!name.startsWith("VERSION")) return false;
    void readFile(join(web.path, name)).then((data) => response.writeHead(200).end(data));
    return true;
  });
  await writeFile(join(strange.path, file), goodArchive("my-app", "evil"));
  const { code, stderr } = await launchfit();
  assert.is(code, 0, stderr);
  assert.is(await installedVersion(deploy), "2");
});

test("mix-and-match: of several folders without VERSION.sig none gives its archive to another one's version", async () => {
  const { web, deploy, launchfit } = await scene({ versionSigned: false });
  const newer = await serveFolder(join(tempDir("newer-"), "w"));
  served.push(newer);
  await publish(web.path, good, "2", { versionSigned: false, date: later(1) });
  const file = await publish(newer.path, good, "3", { versionSigned: false, date: later(2) });
  await writeFile(
    join(deploy, "launchify.yml"),
    `app: { name: my-app }\nupdates: { server: [${newer.url}, ${web.url}], gpg: { key: ${good.fingerprint} } }\n`,
  );
  rmSync(join(newer.path, file));
  const { code, stderr } = await launchfit();
  assert.is(await installedVersion(deploy), "1");
  assert.is(code, 1, stderr);
  assert.match(stderr, `${file}: the server answered 404`);
  assert.equal(readdirSync(join(deploy, "releases")), ["my-app-1"]);
});

test("the archive swapped after it was verified: it is fetched once, and what was hashed is unpacked", async () => {
  const { web, deploy, launchfit } = await scene({ fresh: true });
  const file = "my-app-1.tar.gz";
  web.on(async (_request, _response, name) => {
    // whoever asks a second time gets something else
    if (name === file && web.asked.filter((each) => each === file).length > 1)
      await writeFile(join(web.path, file), goodArchive("my-app", "evil"));
    return false;
  });
  assert.is((await launchfit()).code, 0);
  assert.is(web.asked.filter((name) => name === file).length, 1);
  assert.is(await installedVersion(deploy), "1");
});

const names = [
  "../../../etc/passwd.tar.gz",
  "/etc/passwd.tar.gz",
  "https://evil.example/x.tar.gz",
  "$(touch${IFS}/tmp/evil-boatyard).tar.gz",
  "a;touch /tmp/evil-boatyard;.tar.gz",
  "-o.tar.gz",
  "..tar.gz",
  "a\\b.tar.gz",
  "%2e%2e%2fx.tar.gz",
  "my-app-2.zip",
];
for (const name of names) {
  test(`a VERSION whose archive is called ${name}`, async () => {
    const { web, refused } = await scene();
    await writeVersionText(web.path, good, `CURRENT 2 ${name}\nAPP my-app\n`);
    await refused(/VERSION:1: /);
    assert.not(existsSync("/tmp/evil-boatyard"));
  });
}

for (const version of ["../../x", "1;reboot", "$(id)", "1..2", "v1"]) {
  test(`a VERSION whose version is ${version}`, async () => {
    const { web, refused } = await scene();
    await writeVersionText(web.path, good, `CURRENT ${version} my-app-2.tar.gz\nAPP my-app\n`);
    await refused(/is not a version/);
  });
}

test("a VERSION whose app is a path", async () => {
  const { web, refused } = await scene();
  const text = formatVersionFile({
    current: [{ version: "2", file: "my-app-2.tar.gz" }],
    app: "../x",
  });
  await writeVersionText(web.path, good, text);
  await refused(/is not an app's name/);
});

test("a folder in place of the current link is not touched", async () => {
  const { deploy, web, launchfit } = await scene();
  await rename(join(deploy, "current"), join(deploy, "kept"));
  cpSync(join(deploy, "releases", "my-app-1"), join(deploy, "current"), { recursive: true });
  await publish(web.path, good, "2", { date: later(1) });
  const { code, stderr } = await launchfit();
  assert.match(stderr, /is not a link/);
  assert.is(code, 4);
  assert.is(await installedVersion(deploy), "1");
});

test("the script exits 4 with its name before the reason, and 0 where it is well", async () => {
  const { web, deploy } = await scene();
  const argv = [web.url, "--key", good.fingerprint, "--dir", deploy];
  await publish(web.path, evil, "2", { date: later(1) });
  const { stderr } = await runScript("launchfit", argv, { expect: 4 });
  assert.match(stderr, /^launchfit: .*not by/m);
  await publish(web.path, good, "2", { date: later(1) });
  const { stdout } = await runScript("launchfit", argv, { expect: 0 });
  assert.match(stdout, "my-app-2 installed in");
});

test("the script ends a slow retrieval with exit 4", async () => {
  const { web, deploy } = await scene();
  web.on(() => true);
  const argv = [web.url, "--key", good.fingerprint, "--dir", deploy, "--timeout", "500ms"];
  await runScript("launchfit", argv, { expect: 4 });
});

testUnless(test, needsRoot)(
  "root touches nothing in the directory of another user, who could lead it anywhere by links",
  async () => {
    const { web, deploy, launchfit } = await scene();
    assert.is((await launchfit()).code, 0);
    const victim = tempDir();
    writeFileSync(join(victim, "file"), "of somebody else");
    chmodSync(victim, 0o755);
    const config = join(deploy, "launchify.yml");
    writeFileSync(config, (await readFile(config, "utf8")).replace("app:", "app:\n  exec: 'true'"));
    const temporary = join(deploy, ".launchfit/temporary");
    rmSync(temporary, { recursive: true, force: true });
    symlinkSync(victim, temporary);
    const commands = [["verify"], ["fetch"], ["check", "--once"], ["rollback", "1"], [], [""]];
    commands.push(["notify", "test"]);
    for (const path of [deploy, join(deploy, ".launchfit")]) {
      chownSync(path, 65534, 65534);
      for (const [word, ...more] of commands) {
        const args = word === "" ? [web.url] : [...(word ? [word] : []), ...more];
        const { code, stderr } = await runScript("launchfit", [...args, "--dir", deploy]);
        const said = /belongs to user 65534, .* sudo -u '#65534' launchfit/;
        assert.match(stderr, said, `${args.join(" ")}: ${stderr}`);
        assert.is(code, 4, args.join(" "));
        assert.equal(readdirSync(victim), ["file"], args.join(" "));
      }
      chownSync(path, 0, 0);
    }
    // nor does it wait for what stands there
    rmSync(config);
    await runCommand(["mkfifo", config]);
    chownSync(deploy, 65534, 65534);
    for (const words of [[], [web.url], ["verify"], ["fetch"], ["check", "--once"]]) {
      const argv = ["timeout", "30", ...scriptArgv("launchfit"), ...words, "--dir", deploy];
      assert.is((await runCommand(argv)).code, 4, words.join(" "));
    }
    rmSync(config);
    chownSync(deploy, 0, 0);
    // where anybody may write, anybody can put a launchify.yml
    chmodSync(deploy, 0o1777);
    const { code, stderr } = await runScript("launchfit", ["--dir", deploy]);
    assert.match(stderr, /is writable by every user, .* chmod o-w/);
    assert.is(code, 4);
  },
);

test.run();

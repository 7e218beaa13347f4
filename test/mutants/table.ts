// Ways in which the product could be broken so that users are hurt, each with the tests that must notice it.

export type Mutation = {
  /** What users would suffer. */
  what: string;
  file: string;
  /** Text that is in the file once, and what takes its place. */
  from: string;
  to: string;
  /** Patterns for test/run.ts. */
  tests: string[];
};

const durability = ["scripts/durability"];
const killed = ["scripts/killed"];

export const mutations: Mutation[] = [
  // What is on the disk before what
  {
    what: "a delivery is answered before the store is synced",
    file: "lib/hook/line-file.ts",
    from: "await this.#file?.datasync();",
    to: "",
    tests: durability,
  },
  {
    what: "a file is renamed before its content is on the disk",
    file: "lib/files/files.ts",
    from: "if (durable) await file.sync();",
    to: "",
    tests: durability,
  },
  {
    what: "a renamed file's folder is never synced",
    file: "lib/files/files.ts",
    from: "if (durable) await fsyncFolder(dirname(path));",
    to: "",
    tests: durability,
  },
  {
    what: "folders are not synced at all",
    file: "lib/files/files.ts",
    from: "await handle.sync();",
    to: "",
    tests: durability,
  },
  {
    what: "a compressed part of a log is not synced",
    file: "lib/log/compress.ts",
    from: "await to.sync();",
    to: "",
    tests: durability,
  },
  {
    what: "the plain part goes before the compressed one's name is on the disk",
    file: "lib/log/compress.ts",
    from: "await fsyncFolder(dirname(part));\n    await rm(part);",
    to: "await rm(part);\n    await fsyncFolder(dirname(part));",
    tests: durability,
  },
  {
    what: "a download that replaces another is not flushed",
    file: "lib/fetch/partial.ts",
    from: "if (flush) await promisify(fdatasync)(fd);",
    to: "",
    tests: durability,
  },
  {
    what: "a release is not brought to the disk before it has its name",
    file: "lib/launch/deploy-directory.ts",
    from: "await $({ nothrow: true })`sync -f ${from}`",
    to: "await $({ nothrow: true })`true ${from}`",
    tests: durability,
  },
  {
    what: "the folder of releases is not synced",
    file: "lib/launch/deploy-directory.ts",
    from: "await fsyncFolder(deploy.releases);",
    to: "",
    tests: durability,
  },
  {
    what: "the folder of current is not synced",
    file: "lib/launch/deploy-directory.ts",
    from: "await fsyncFolder(deploy.path);",
    to: "",
    tests: durability,
  },
  {
    what: "the link of a slave's repo is not synced",
    file: "lib/fleet/repo/link.ts",
    from: "await fsyncFolder(place.repos);",
    to: "",
    tests: durability,
  },
  {
    what: "VERSION is written before VERSION.sig",
    file: "lib/release/folder.ts",
    from: `  await writeAtomic(join(out, "VERSION.sig"), await signer.sign(data), { mode: 0o644 });
  await writeAtomic(join(out, "VERSION"), data, { mode: 0o644 });`,
    to: `  await writeAtomic(join(out, "VERSION"), data, { mode: 0o644 });
  await writeAtomic(join(out, "VERSION.sig"), await signer.sign(data), { mode: 0o644 });`,
    tests: durability,
  },
  // Replaced in one step
  {
    what: "current is removed and made anew",
    file: "lib/launch/deploy-directory.ts",
    from: "await rename(link, deploy.current);",
    to: "await rm(deploy.current, { force: true });\n    await symlink(target, deploy.current);\n    await rm(link);",
    tests: killed,
  },
  {
    what: "the link of a slave's repo is removed and made anew",
    file: "lib/fleet/repo/link.ts",
    from: "else await rename(place.newLink, place.link);",
    to: "else {\n    await rm(place.link, { force: true });\n    await rename(place.newLink, place.link);\n  }",
    tests: killed,
  },
  {
    what: "a file is removed before the new one has its name",
    file: "lib/files/files.ts",
    from: "await rename(temporary, path);",
    to: "await rm(path, { force: true });\n    await rename(temporary, path);",
    tests: ["lib/files", ...killed],
  },
  {
    what: "a file is written in its place",
    file: "lib/files/files.ts",
    from: "const temporary = temporaryBeside(path);\n  const forget",
    to: "const temporary = path;\n  const forget",
    tests: ["lib/files"],
  },
  {
    what: "the file that a download replaces is moved to old/, not linked",
    file: "lib/downloads/place.ts",
    from: "linkSync(from, to);\n  } catch",
    to: "renameSync(from, to);\n  } catch",
    tests: killed,
  },
  {
    what: "the plain part of a log goes before the compressed one has its name",
    file: "lib/log/compress.ts",
    from: "await rename(temporary, packed);",
    to: "await rm(part);\n    await rename(temporary, packed);",
    tests: killed,
  },
  // Who may
  {
    what: "the last byte of a webhook's signature is not compared",
    file: "lib/hook/signature.ts",
    from: `createHmac("sha256", secret).update(body).digest(),
    Buffer.from(proof.hex, "hex"),`,
    to: `createHmac("sha256", secret).update(body).digest().subarray(0, 31),
    Buffer.from(proof.hex, "hex").subarray(0, 31),`,
    tests: ["lib/hook/signature", "scripts/hook-server.test"],
  },
  {
    what: "a signing token's signature is not compared at its end",
    file: "lib/hook/signature.ts",
    from: "timingSafeEqual(given, right);",
    to: "timingSafeEqual(given.subarray(0, 31), right.subarray(0, 31));",
    tests: ["lib/hook/signature"],
  },
  {
    what: "an old signature of a signing token is taken",
    file: "lib/hook/signature.ts",
    from: " && whyStale(proof, now) === undefined",
    to: "",
    tests: ["lib/hook/signature"],
  },
  {
    what: "a repo with a signing token takes a plain token",
    file: "lib/hook/signature.ts",
    from: 'return proof.kind === "signed" && whyStale',
    to: 'return proof.kind !== "signed" || whyStale',
    tests: ["lib/hook/signature"],
  },
  {
    what: "the last byte of the fleet's shared signature is not compared",
    file: "lib/fleet/signature.ts",
    from: `timingSafeEqual(Buffer.from(hmacOf(each, text), "hex"), given),`,
    to: `timingSafeEqual(Buffer.from(hmacOf(each, text), "hex").subarray(0, 31), given.subarray(0, 31)),`,
    tests: ["lib/fleet"],
  },
  {
    what: "an old request to a slave is taken again",
    file: "lib/fleet/signature.ts",
    from: `  const late = clockRefusal(Number(time) * 1000, now);
  if (late !== undefined) return { ok: false, reason: late };
  return { ok: true, nonce, time: Number(time), secret, target };`,
    to: "  return { ok: true, nonce, time: Number(time), secret, target };",
    tests: ["lib/fleet"],
  },
  {
    what: "a build keeps the server's supplementary groups",
    file: "lib/exec/users.ts",
    from: '"--init-groups",',
    to: '"--keep-groups",',
    tests: ["scripts/hook-server-process", "lib/exec"],
  },
  {
    what: "a build keeps root's capabilities",
    file: "lib/exec/users.ts",
    from: '"--bounding-set=-all",\n    "--inh-caps=-all",',
    to: "",
    tests: ["lib/exec", "scripts/hook-server-process"],
  },
  {
    what: "payload.json is readable by all",
    file: "lib/hook/records.ts",
    from: "{ mode: 0o400 }",
    to: "{ mode: 0o444 }",
    tests: ["scripts/hook-server"],
  },
  {
    what: "uploads pushes with --force",
    file: "lib/uploads/git-target.ts",
    from: "git push --quiet",
    to: "git push --force --quiet",
    tests: ["scripts/uploads.test"],
  },
  // What is seen
  {
    what: "NO_COLOR is not heeded",
    file: "lib/cli/terminal.ts",
    from: "wanted && !NO_COLOR ? 1 : 0",
    to: "wanted ? 1 : 0",
    tests: ["lib/cli"],
  },
  {
    what: "of two secrets that overlap the end of one is shown",
    file: "lib/config/secrets.ts",
    from: "last[1] = Math.max(last[1], end);",
    to: "last[1] = Math.min(last[1], end);",
    tests: ["lib/config/secrets"],
  },
  {
    what: "a lock file that was replaced counts as held",
    file: "lib/files/lock.ts",
    from: "if (isSameFile(fd, path)) return hold(fd, what);",
    to: "return hold(fd, what);",
    tests: ["lib/files"],
  },
  {
    what: "a log that was rotated is written to for ever",
    file: "lib/log/writer.ts",
    from: "this.#file.closeIfRenamed();\n    }, idleCheckEvery);",
    to: "}, idleCheckEvery);",
    tests: ["lib/log"],
  },
];

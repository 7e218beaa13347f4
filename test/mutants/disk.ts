// What is on the disk before what, and what is replaced in one step.
import type { Mutation } from "./mutation.ts";

const durability = ["scripts/durability"];
const killed = ["scripts/killed"];

export const disk: Mutation[] = [
  // What is on the disk before what
  {
    what: "a delivery is answered before the store is synced",
    file: "lib/run-store/file-store.ts",
    from: "constants.O_APPEND | constants.O_DSYNC;",
    to: "constants.O_APPEND;",
    tests: durability,
  },
  {
    what: "a rewritten store is not synced before it has its name",
    file: "lib/run-store/file-store.ts",
    from: "await this.copyRest(old, file, fresh);\n    await file.sync();",
    to: "await this.copyRest(old, file, fresh);",
    tests: durability,
  },
  {
    what: "what is accepted while the store is rewritten is lost",
    file: "lib/run-store/file-store.ts",
    from: "fresh.from += data.length;",
    to: "fresh.from += data.length;\n    return;",
    tests: ["lib/run-store/file-store"],
  },
  {
    what: "a change of a run does not see the one before it that is on its way to the disk",
    file: "lib/run-store/file-store.ts",
    from: "const now = this.#next.get(id) ?? this.get(id);",
    to: "const now = this.get(id);",
    tests: ["lib/run-store/file-store"],
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
    file: "lib/log/rotate.ts",
    from: "await to.sync();",
    to: "",
    tests: durability,
  },
  {
    what: "the plain part goes before the compressed one's name is on the disk",
    file: "lib/log/rotate.ts",
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
    file: "lib/launch/releases.ts",
    from: "await $({ nothrow: true })`sync -f ${from}`",
    to: "await $({ nothrow: true })`true ${from}`",
    tests: durability,
  },
  {
    what: "the folder of releases is not synced",
    file: "lib/launch/releases.ts",
    from: "await fsyncFolder(deploy.releases);",
    to: "",
    tests: durability,
  },
  {
    what: "the folder of current is not synced",
    file: "lib/launch/releases.ts",
    from: "await fsyncFolder(deploy.path);",
    to: "",
    tests: durability,
  },
  {
    what: "the link of a slave's repo is not synced",
    file: "lib/fleet/repo/trees.ts",
    from: "await fsyncFolder(place.repos);",
    to: "",
    tests: durability,
  },
  {
    what: "VERSION is written before VERSION.sig",
    file: "lib/release/folder.ts",
    from: "await writeAtomic(`${place}.sig`, signature, { mode: 0o644 });\n    await writeAtomic(place, data, { mode: 0o644 });",
    to: "await writeAtomic(place, data, { mode: 0o644 });\n    await writeAtomic(`${place}.sig`, signature, { mode: 0o644 });",
    tests: durability,
  },
  // Replaced in one step
  {
    what: "current is removed and made anew",
    file: "lib/launch/releases.ts",
    from: "await rename(link, deploy.current);",
    to: "await rm(deploy.current, { force: true });\n    await symlink(target, deploy.current);\n    await rm(link);",
    tests: killed,
  },
  {
    what: "the link of a slave's repo is removed and made anew",
    file: "lib/fleet/repo/trees.ts",
    from: "else await rename(link, place.link);",
    to: "else {\n    await rm(place.link, { force: true });\n    await rename(link, place.link);\n  }",
    tests: killed,
  },
  {
    what: "a file is removed before the new one has its name",
    file: "lib/files/files.ts",
    from: "await rename(temporary, path);",
    to: "await rm(path, { force: true });\n    await rename(temporary, path);",
    tests: durability,
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
    file: "lib/downloads/paths.ts",
    from: "linkSync(from, to);\n  } catch",
    to: "renameSync(from, to);\n  } catch",
    tests: killed,
  },
  {
    what: "the plain part of a log goes before the compressed one has its name",
    file: "lib/log/rotate.ts",
    from: "await rename(temporary, `${part}.gz`);",
    to: "await rm(part);\n    await rename(temporary, `${part}.gz`);",
    tests: killed,
  },
];

// A second Unix user, for what only root can test.
import { randomBytes } from "node:crypto";
import { rm } from "node:fs/promises";
import { runCommand } from "./run.ts";

export type TestUser = { name: string; uid: number; gid: number; home: string };

/** Runs `body` with a fresh user who has a home, then removes both. Root only. */
export async function withUser<T>(body: (user: TestUser) => Promise<T>): Promise<T> {
  const user = await makeUser();
  try {
    return await body(user);
  } finally {
    await removeUser(user);
  }
}

export async function makeUser(): Promise<TestUser> {
  const name = `by-test-${randomBytes(3).toString("hex")}`;
  await locked(["useradd", "--create-home", "--user-group", "--shell", "/bin/sh", name]);
  const { stdout } = await runCommand(["getent", "passwd", name], { expect: 0 });
  const [, , uid, gid, , home = ""] = stdout.trim().split(":");
  return { name, uid: Number(uid), gid: Number(gid), home };
}

export async function removeUser(user: TestUser): Promise<void> {
  const asUser = ["setpriv", `--reuid=${user.uid}`, `--regid=${user.gid}`, "--clear-groups"];
  await runCommand([...asUser, "sh", "-c", "kill -KILL -1"]);
  await locked(["userdel", "--force", user.name]);
  await rm(user.home, { recursive: true, force: true });
}

/** Two test files may want /etc/passwd at once, and useradd does not wait for its lock. */
export async function locked(argv: string[]): Promise<void> {
  await runCommand(["flock", "/run/lock/boatyard-test-users", ...argv], { expect: 0 });
}

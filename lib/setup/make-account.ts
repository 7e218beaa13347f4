import { run } from "../exec/exec.ts";
import { readIfThere } from "../files/files.ts";
import { lookUpUser } from "../exec/users.ts";
import type { Step, Survey } from "./step.ts";

type AccountStep = Step & { kind: "account" };

/**
 * Whether the account is there, and whole: useradd(8) writes four files one after the other, and one that was killed in
 * between leaves a user without its group or its line in shadow(5), whom services and su do not take.
 */
export async function accountState(step: AccountStep): Promise<Survey> {
  const user = await lookUpUser(step.name).catch(() => undefined);
  if (!user) return "make";
  const line = (await lines("/etc/passwd")).find((each) => each.startsWith(`${step.name}:`));
  // another's account, or one that is not kept in files, is not ours to look into
  if (line === undefined || line.split(":")[4] !== step.comment) return "ready";
  const group = (await lines("/etc/group")).find((each) => each.split(":")[2] === `${user.gid}`);
  if (group === undefined) return "mend";
  for (const [file, name] of [
    ["/etc/shadow", step.name],
    ["/etc/gshadow", group.split(":")[0] ?? ""],
  ] as const) {
    const found = await lines(file);
    if (found.length > 0 && !found.some((each) => each.startsWith(`${name}:`))) return "mend";
  }
  return "ready";
}

/** Add the account; a half one is added anew, under its number. */
export async function makeAccount(step: AccountStep): Promise<void> {
  const half = await lookUpUser(step.name).catch(() => undefined);
  if (half) {
    await run(["userdel", step.name], { check: false });
    await run(["groupdel", step.name], { check: false });
  }
  await run([
    "useradd",
    "--user-group",
    "--no-create-home",
    ...(step.system ? ["--system", "--shell", "/usr/sbin/nologin"] : ["--shell", "/bin/bash"]),
    ...(half ? ["--uid", String(half.uid)] : []),
    "--home-dir",
    step.home,
    "--comment",
    step.comment,
    step.name,
  ]);
}

/** A file's lines; none where it cannot be read, as shadow for an ordinary user. */
async function lines(file: string): Promise<string[]> {
  const text = await readIfThere(file).catch(() => undefined);
  return (text ?? "").split("\n").filter((line) => line !== "");
}

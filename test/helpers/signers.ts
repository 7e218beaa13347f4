// Who signs commits.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { TestRepo } from "./repos.ts";
import { runCommand } from "./run.ts";
import { tempDir } from "./tmp.ts";

/** A key of ssh, and `allowed_signers` with it. */
export async function sshSigner(more = "") {
  const folder = tempDir();
  const key = join(folder, "key");
  await runCommand(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], { expect: 0 });
  const signers = join(folder, "signers");
  await writeFile(signers, `me@example.com ${more}${await readFile(`${key}.pub`, "utf8")}`, { mode: 0o644 });
  return { key, signers };
}

/** Every further commit of a repo is signed. */
export async function signWith(repo: TestRepo, format: string, key: string): Promise<void> {
  await repo.git("config", "gpg.format", format);
  await repo.git("config", "user.signingkey", key);
  await repo.git("config", "commit.gpgsign", "true");
}

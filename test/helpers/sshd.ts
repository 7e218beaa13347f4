// A real sshd of our own: loopback only, keys only, as whoever runs the tests.
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { freePort } from "./ports.ts";
import { type Running, runCommand, startCommand } from "./run.ts";
import { tempDir } from "./tmp.ts";

const binary = "/usr/sbin/sshd";

/** Why there can be no sshd here; undefined when there can. */
export const needsSshd = existsSync(binary) ? undefined : `needs ${binary} (openssh-server)`;

/** A private sshd and what a client needs to log in. */
export type TestSshd = {
  port: number;
  /** The account that logs in: the one that runs the tests. */
  user: string;
  /** Private key of the client; its public half is beside it. */
  key: string;
  /** A known_hosts file that holds the server's key. */
  knownHosts: string;
  /** `known_hosts` line of the server. */
  hostLine: string;
  /** Options for an `ssh` or `GIT_SSH_COMMAND` that logs in here without any other setting. */
  sshOptions: string[];
  /** What the server printed. */
  log: () => string;
  /** Gives the server a new host key and starts it again on the same port. */
  changeHostKey: () => Promise<void>;
  stop: () => Promise<void>;
};

/** Starts an sshd; it ends with the test file at the latest. */
export async function startSshd(): Promise<TestSshd> {
  const dir = tempDir("sshd-");
  const port = await freePort();
  const file = (name: string) => join(dir, name);
  await keygen(file("id"));
  await writeFile(file("authorized_keys"), await readFile(file("id.pub")), { mode: 0o600 });
  // sshd insists on its privilege separation folder when root starts it
  if (process.getuid?.() === 0) await mkdir("/run/sshd", { recursive: true, mode: 0o755 });
  let hostKeys = 0;
  let running: Running | undefined;
  const stop = async () => {
    await running?.stop();
    running = undefined;
  };
  const launch = async () => {
    const hostKey = file(`host${++hostKeys}`);
    await keygen(hostKey);
    await writeFile(file("sshd_config"), config({ port, dir, hostKey }));
    running = startCommand([binary, "-D", "-e", "-f", file("sshd_config")]);
    await running.until(/Server listening on/);
    return `[127.0.0.1]:${port} ${(await readFile(`${hostKey}.pub`, "utf8")).split(" ", 2).join(" ")}`;
  };
  const hostLine = await launch();
  await writeFile(file("known_hosts"), `${hostLine}\n`);
  return {
    port,
    user: userInfo().username,
    key: file("id"),
    knownHosts: file("known_hosts"),
    hostLine,
    sshOptions: [
      ...["-F", "/dev/null", "-p", String(port), "-i", file("id"), "-o", "IdentitiesOnly=yes"],
      ...["-o", `UserKnownHostsFile=${file("known_hosts")}`, "-o", "StrictHostKeyChecking=yes"],
      ...["-o", "BatchMode=yes"],
    ],
    log: () => running?.output() ?? "",
    async changeHostKey() {
      await stop();
      await launch();
    },
    stop,
  };
}

async function keygen(path: string): Promise<void> {
  const argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path];
  await runCommand(argv, { expect: 0 });
}

function config({ port, dir, hostKey }: { port: number; dir: string; hostKey: string }): string {
  return [
    `Port ${port}`,
    "ListenAddress 127.0.0.1",
    `HostKey ${hostKey}`,
    "PidFile none",
    `AuthorizedKeysFile ${join(dir, "authorized_keys")}`,
    "StrictModes no",
    "UsePAM no",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "PermitRootLogin prohibit-password",
    "AllowTcpForwarding no",
    // several test connections at once must not be turned away
    "MaxStartups 100",
    "Subsystem sftp internal-sftp",
    "",
  ].join("\n");
}

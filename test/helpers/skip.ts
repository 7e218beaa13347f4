// A test that cannot run here says why, and the run's summary repeats it.
import { lookup } from "node:dns/promises";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import process from "node:process";
import type { Callback, Test } from "uvu";

/**
 * Registers the test, or, when `reason` is given, skips it and prints the reason:
 * `testUnless(test, isRoot ? undefined : "needs root")("a build is another user's", async () => …)`.
 */
export function testUnless(test: Test, reason: string | undefined | false) {
  return (name: string, body: Callback): void => {
    if (!reason) {
      test(name, body);
    } else {
      console.log(`SKIP ${name}: ${reason}`);
      test.skip(name, body);
    }
  };
}

const localhost = await lookup("localhost", { all: true }).catch(() => []);
/** For what needs a name beside an address. */
export const needsLocalhost = localhost.some(({ address }) => address === "127.0.0.1")
  ? undefined
  : "needs the name localhost for 127.0.0.1 (/etc/hosts)";

export const isRoot = process.getuid?.() === 0;
export const needsRoot = isRoot ? undefined : "needs root";
export const needsOrdinaryUser = isRoot ? "needs an ordinary user" : undefined;

/** Debian's packages whose name is not that of the command. */
const packages: Record<string, string> = {
  aria2c: "aria2",
  cc: "gcc libc6-dev",
  gpg: "gnupg",
  ip: "iproute2",
  "linux.uml": "user-mode-linux",
  nft: "nftables",
  nginx: "nginx-light",
  openssl: "openssl",
  setpriv: "util-linux",
  sshd: "openssh-server",
  "systemd-notify": "systemd",
  "systemd-socket-activate": "systemd",
  unshare: "util-linux",
};

/** The reason to skip what needs a command that is neither on PATH nor in /usr/sbin, and what to install. */
export function needsCommand(name: string): string | undefined {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/sbin"];
  if (folders.some((folder) => existsSync(join(folder, name)))) return undefined;
  return `needs ${name} (apt install ${packages[name] ?? name})`;
}

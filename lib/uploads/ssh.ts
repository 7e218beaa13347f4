import { Failure } from "../core/errors.ts";
import { quoteWord } from "../exec/exec.ts";
import type { SshSettings } from "./config.ts";

/** Logging in by ssh, without a question and only to a host whose key is known. Pure. */

/** Options for ssh(1), see ssh_config(5). */
export function sshOptions({ key, knownHosts, port }: SshSettings): string[] {
  return [
    ...["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=15"],
    // a line that drops is noticed after a minute
    ...["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"],
    ...["-o", "ForwardAgent=no", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no"],
    ...(port === undefined ? [] : ["-p", String(port)]),
    // quoted, since ssh itself splits file lists at blanks
    ...(knownHosts === undefined ? [] : ["-o", `UserKnownHostsFile="${knownHosts}"`]),
    ...(knownHosts === undefined ? [] : ["-o", "GlobalKnownHostsFile=none"]),
    ...(key === undefined ? [] : ["-i", key, "-o", "IdentitiesOnly=yes"]),
  ];
}

/**
 * Options by which several ssh use one connection (ControlMaster in ssh_config(5)): the first opens it, it stays open
 * for some seconds after the last.
 * @param socket ssh cannot take a long path (ControlPath, under 108 bytes with its addition): then each opens its own.
 */
export function sharedConnection(socket: string): string[] {
  if (Buffer.byteLength(socket) > 85) return [];
  return ["-o", "ControlMaster=auto", "-o", `ControlPath=${socket}`, "-o", "ControlPersist=10"];
}

/** The command for git's GIT_SSH_COMMAND, which a shell reads. */
export function sshForShell(settings: SshSettings): string {
  return ["ssh", ...sshOptions(settings)].map(quoteWord).join(" ");
}

/** The command for rsync's --rsh: it splits at blanks, and knows quotes that are doubled inside. */
export function sshForRsync(settings: SshSettings, more: readonly string[] = []): string {
  return ["ssh", ...sshOptions(settings), ...more]
    .map((word) => (/[\s"']/.test(word) ? `"${word.replaceAll('"', '""')}"` : word))
    .join(" ");
}

/**
 * What ssh said on stderr, in one sentence with what to do; undefined when nothing there is ssh's.
 * These failures are final: another try would fail in the same way.
 */
export function explainSsh(stderr: string, host: string, settings: SshSettings): Failure | undefined {
  const file = settings.knownHosts ?? "~/.ssh/known_hosts";
  const port = settings.port === undefined ? "" : `-p ${settings.port} `;
  const fingerprint = /^SHA256:[\w+/=]+(?=\.?$)/m.exec(stderr)?.[0];
  if (/REMOTE HOST IDENTIFICATION HAS CHANGED/.test(stderr))
    return new Failure(
      `the host key of ${host} has changed${fingerprint ? ` (now ${fingerprint})` : ""}: somebody may intercept the ` +
        "connection; ask whoever runs it, and only if it is right: " +
        `ssh-keygen -R, then ssh-keyscan ${port}${host} >> ${file}`,
    );
  if (/Host key verification failed|No \S+ host key is known/.test(stderr))
    return new Failure(
      `the host key of ${host} is not known in ${file}; get it by "ssh-keyscan ${port}${host}", ` +
        "compare its fingerprint (ssh-keygen -lf -) with the one on the server, and add the line",
    );
  if (/Permission denied \([a-z]|Too many authentication failures/.test(stderr))
    return new Failure(
      `${host} does not let this key in (${settings.key ?? "ssh's default keys"}); ` +
        "add its public half to authorized_keys there",
    );
  if (/UNPROTECTED PRIVATE KEY FILE|bad permissions/i.test(stderr))
    return new Failure(`others can read the key ${settings.key ?? ""}; chmod 600 it`);
  if (/Identity file .* not accessible|Load key .*: (?:No such file|Permission denied)/.test(stderr))
    return new Failure(`the key ${settings.key ?? ""} cannot be read; correct key: or the file`);
  if (/Could not resolve hostname/.test(stderr))
    return new Failure(`the host name ${host} cannot be found; check it and the network`);
  return undefined;
}

import { userInfo } from "node:os";
import { delimiter } from "node:path";
import process from "node:process";

const allowed =
  /^(?:PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|SSH_AUTH_SOCK|DENO_DIR|(?:https?|no|all)_proxy)$/i;
const certificates =
  /^(?:SSL_CERT_(?:FILE|DIR)|NODE_EXTRA_CA_CERTS|NODE_USE_SYSTEM_CA|DENO_CERT|DENO_TLS_CA_STORE)$/;

/**
 * The environment for a child: only what is on a short list of ours, then `extra` (undefined takes one away).
 * SHLVL is set because Debian's bash reads ~/.bashrc when it finds none and its stdin is a socket.
 */
export function cleanEnvironment(
  extra: Record<string, string | undefined> = {},
): Record<string, string> {
  const env: Record<string, string> = { SHLVL: "1", ...trustedCertificates() };
  for (const name of Object.keys(process.env).filter((each) => allowed.test(each)))
    env[name] = process.env[name] ?? "";
  env.PATH = searchPath();
  for (const [name, value] of Object.entries(extra)) {
    if (value === undefined) delete env[name];
    else env[name] = value;
  }
  return env;
}

/** HOME, USER and LOGNAME of the user that we are, also where cron, systemd and `env -i` leave them out. */
export function accountVariables(): Record<string, string> {
  const { HOME, USER, LOGNAME } = process.env;
  if (HOME && USER && LOGNAME) return { HOME, USER, LOGNAME };
  const me = account();
  return {
    HOME: HOME || me?.homedir || "/",
    ...(me && { USER: USER || me.username, LOGNAME: LOGNAME || me.username }),
  };
}

/** A container may run under a number that has no account. */
function account() {
  try {
    return userInfo();
  } catch {
    return undefined;
  }
}

/** Which certificates to trust: a private CA holds for all that is started, as whichever user. */
export function trustedCertificates(): Record<string, string> {
  const named = Object.entries(process.env).filter(([name]) => certificates.test(name));
  return Object.fromEntries(named.map(([name, value]) => [name, value ?? ""]));
}

/** Where commands are looked for when PATH is not set: env -i, some containers. */
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * PATH as children get it. Deno (2.9) puts a folder before it, in which `node` is Deno itself: a build's
 * npm and scripts must get the real one, as they do when they are started by hand.
 */
export function searchPath(): string {
  const folders = (process.env.PATH ?? "").split(delimiter);
  const own = folders.filter((folder) => folder !== "" && !folder.endsWith("/node_compat_bin"));
  return own.length > 0 ? own.join(delimiter) : defaultPath;
}

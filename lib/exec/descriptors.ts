import { existsSync } from "node:fs";

const bash = "/bin/bash";
const hasBash = existsSync(bash);

/** The shell that runs what `closeFrom` gives: only bash can close descriptors of two digits. */
export const closingShell = hasBash ? bash : "/bin/sh";

/**
 * A line of shell that closes the descriptors from this one on. A program that outlives us, or is not ours, must not
 * have them: our parent may have left some open, and Deno lets its children inherit even sockets that it listens on.
 */
export function closeFrom(first: number): string {
  if (hasBash)
    return `for fd in /proc/self/fd/*; do fd=\${fd##*/}; [ "$fd" -ge ${first} ] 2>&- && eval "exec $fd<&-"; done`;
  const others = [3, 4, 5, 6, 7, 8, 9].filter((fd) => fd >= first);
  return `exec ${others.map((fd) => `${fd}<&-`).join(" ")}`;
}

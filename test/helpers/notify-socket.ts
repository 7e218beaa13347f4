// The socket on which systemd hears a service (sd_notify(3)): perl(1) listens in its place.
import { join } from "node:path";
import { type Running, startCommand } from "./run.ts";
import { needsCommand } from "./skip.ts";
import { tempDir } from "./tmp.ts";

/** Why it cannot be listened to here; undefined when it can. */
export const noNotifySocket = needsCommand("systemd-notify") ?? needsCommand("perl");

const program =
  '$| = 1; $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $ARGV[0]) or die; print "ready\\n"; while (1) { $s->recv($m, 4096); $m =~ s/\\n/ /g; print "got $m\\n"; }';

/** Listens; every message is a line `got …` of the output. Kill it in the end. */
export async function startNotifySocket(): Promise<Running & { path: string }> {
  const path = join(tempDir(), "notify");
  const listener = startCommand(["perl", "-MIO::Socket::UNIX", "-e", program, path]);
  await listener.until(/ready/);
  return { ...listener, path };
}

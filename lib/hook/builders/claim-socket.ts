import { chmodSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createHttpServer, HttpError, listenOn, sendJson } from "../../http/server.ts";

/**
 * Where the commands of a run ask, before they publish, whether its claim still is this builder's: HTTP on a Unix
 * socket in the state folder, as `GET /RUN/FENCE`. Repos are built by users of their own, so anybody here may ask.
 */
export function claimSocketOf(state: string): string {
  return join(state, "claim");
}

/**
 * Answer them.
 * @param mayPublish whether a run under a claim with this fencing number may publish now
 * @returns what ends it
 * @throws {UsageError} when the socket cannot be made
 */
export async function answerClaims(
  path: string,
  mayPublish: (run: string, fence: number) => Promise<boolean>,
  onBug: (error: unknown) => void,
): Promise<() => void> {
  const server = createHttpServer(async (request, response) => {
    const [, run = "", fence] = /^\/([\w-]+)\/(\d+)$/.exec(request.url ?? "") ?? [];
    if (!(await mayPublish(run, Number(fence))))
      throw new HttpError(
        409,
        "this builder has lost its claim of the repo; another one may run it",
      );
    sendJson(response, 200, {});
  }, onBug);
  // the lock on the state folder is ours: a socket that is there is a dead server's
  rmSync(path, { force: true });
  await listenOn(server, { path });
  chmodSync(path, 0o666);
  return () => {
    server.close();
    server.closeAllConnections();
    rmSync(path, { force: true });
  };
}

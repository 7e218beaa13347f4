import { shownName } from "../archive/tar.ts";
import { Refused } from "../core/errors.ts";
import type { LaunchConfig } from "./config.ts";

/**
 * Whether an archive's one top folder, as plain `tar czf app.tar.gz my-app`, npm pack and forges make it, is taken off. Pure.
 * @param app the deploy directory's own configuration: an exec there was written for the archive as it is.
 * @throws {Refused} when nobody says it.
 */
export function mustStrip(
  { strip, exec }: Pick<LaunchConfig["app"], "strip" | "exec">,
  top: string | undefined,
  hasConfig: boolean,
): boolean {
  if (strip === 1 && top === undefined)
    throw new Refused("app.strip: 1 is for one top folder, and it has more at its top");
  if (strip === 1) return true;
  if (top === undefined || strip === 0 || exec !== undefined) return false;
  if (hasConfig) return true;
  throw new Refused(
    `all of it is in one folder, "${shownName(top)}"; write app.strip: 1 into launchify.yml to take that off, or app.strip: 0 to keep it`,
  );
}

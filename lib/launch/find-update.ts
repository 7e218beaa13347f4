import { readdirSync } from "node:fs";
import process from "node:process";
import { Failure, messageOf, Refused } from "../core/errors.ts";
import { checkExpiry, checkSameBytes, checkVersion } from "../web-folder/floors.ts";
import { currentFor, readArchiveName, thisPlatform } from "../web-folder/version-file.ts";
import type { SignedVersion, WebFolder } from "../web-folder/web-folder.ts";
import type { LaunchConfig } from "./config.ts";
import { currentRelease } from "./deploy-directory.ts";
import type { Found, InstallOptions, Offer, Session } from "./session.ts";
import type { LaunchState } from "./state.ts";

/**
 * Ask the web folders what is current. All are asked, since one that shows an old VERSION must not hide a newer one.
 * @param conditional answer `unchanged` when VERSION is the one that was dealt with last.
 * @throws {Refused} when no folder has a VERSION that may be taken, with each one's reason.
 */
export async function findUpdate(session: Session, { conditional = false } = {}): Promise<Found> {
  const { folders, state, config, options, trust } = session;
  const only = folders.length === 1 ? folders[0] : undefined;
  const etag = conditional && only ? state.etags[only.url] : undefined;
  const answers = await Promise.all(
    folders.map(async (folder) => {
      try {
        const version = await folder.version(trust.keys, etag);
        if (!version) return "unchanged" as const;
        return readOffer(folder, version, state, config, options);
      } catch (error) {
        options.signal?.throwIfAborted();
        return { folder, error };
      }
    }),
  );
  if (answers.includes("unchanged") && only) {
    checkExpiry(state.expires, only.name("VERSION"));
    return { kind: "unchanged", name: "", app: state.app ?? "", version: "", offers: [] };
  }
  const failed = answers.filter((answer) => answer !== "unchanged" && "error" in answer);
  const good = answers.filter(
    (answer): answer is Offer => answer !== "unchanged" && "line" in answer,
  );
  const offers = good.some(({ verdict }) => verdict) ? newestFirst(good) : good;
  const [best] = offers;
  if (!best) throw allFailed(failed);
  for (const { error } of failed) options.note(`${messageOf(error)}; another server is taken`);
  const name = `${best.app}-${best.line.version}`;
  const { release, expires } = best.file;
  return {
    kind: (await currentRelease(session.deploy)) === name ? "current" : "new",
    name,
    app: best.app,
    version: best.line.version,
    ...(release === undefined ? {} : { release }),
    ...(best.verdict && expires ? { expires } : {}),
    offers,
  };
}

/** Hold one folder's VERSION against what is known here. */
function readOffer(
  folder: WebFolder,
  version: SignedVersion,
  state: LaunchState,
  config: LaunchConfig,
  options: InstallOptions,
): Offer {
  const name = folder.name("VERSION");
  const { file, verdict } = version;
  checkVersion(state, version, name, options);
  const platform = options.platform ?? thisPlatform(process.platform, isMusl());
  const line = currentFor(file, platform, name);
  // without a signature over it, nothing else in VERSION counts
  const inName = readArchiveName(line.file, line.version)?.app;
  const wanted = config.app.name ?? state.app;
  const app = (verdict ? file.app : undefined) ?? inName ?? wanted;
  if (app === undefined)
    throw new Refused(`${name} does not tell the app's name; give app.name in launchify.yml`);
  for (const said of [app, inName])
    if (wanted !== undefined && said !== undefined && said !== wanted)
      throw new Refused(`${name} is for the app ${said}, not for ${wanted} (wrong software)`);
  checkSameBytes(state, line, verdict ? line.sha256 : undefined);
  return { ...version, folder, line, app };
}

/** Of signed VERSIONs only the newest, which several mirrors may have. */
function newestFirst(offers: Offer[]): Offer[] {
  const time = ({ file, verdict }: Offer) => [
    file.date?.getTime() ?? 0,
    verdict?.created.getTime() ?? 0,
  ];
  const signed = offers.filter(({ verdict }) => verdict);
  signed.sort((a, b) => {
    const [one, other] = [time(a), time(b)];
    return (other[0] ?? 0) - (one[0] ?? 0) || (other[1] ?? 0) - (one[1] ?? 0);
  });
  const best = signed[0];
  return signed.filter(
    ({ line }) => line.version === best?.line.version && line.sha256 === best.line.sha256,
  );
}

/** One error for what each of several servers said. */
export function allFailed(failed: readonly unknown[]): Error {
  const errors = failed.map((each) => (each as { error: unknown }).error);
  const [first] = errors;
  const bug = errors.find((error) => !(error instanceof Failure) && !(error instanceof Refused));
  if (bug !== undefined) return bug as Error;
  if (errors.length === 1) return first as Error;
  const text = errors.map(messageOf).join("\n");
  return errors.some((error) => error instanceof Refused) ? new Refused(text) : new Failure(text);
}

/** musl is the C library where its loader stands and glibc's does not (process.report tells too, but slowly). */
function isMusl(): boolean {
  const names = ["/lib", "/lib64"].flatMap((folder) => {
    try {
      return readdirSync(folder);
    } catch {
      return [];
    }
  });
  return (
    names.some((name) => name.startsWith("ld-musl-")) &&
    !names.some((name) => name.startsWith("ld-linux"))
  );
}

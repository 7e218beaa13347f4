import { readdir } from "node:fs/promises";
import process from "node:process";
import { Failure, messageOf, Refused } from "../core/errors.ts";
import { checkExpiry, checkLine, checkVersion, mustReplace, offeredSha256 } from "../web-folder/rollback-guard.ts";
import { type CurrentLine, currentFor, readArchiveName, thisPlatform } from "../web-folder/version-file.ts";
import type { SignedVersion, WebFolder } from "../web-folder/web-folder.ts";
import { currentRelease } from "./releases.ts";
import type { Session } from "./session.ts";
import type { LaunchState } from "./state.ts";

/** What the web folders offer. */
export interface Update {
  /** `unchanged`: VERSION is the one of the last time. `current`: `current` names it already. */
  kind: "unchanged" | "current" | "new";
  /** `my-app-1.23.42b`; empty when unchanged. */
  name: string;
  app: string;
  version: string;
  release?: string;
  expires?: Date;
  /** Of the archive, in hex, where it is known before it is fetched. */
  sha256?: string | undefined;
  /** Where it may be fetched, the best first. */
  offers: Offer[];
}

/** One folder's VERSION, and the line of it that is for this machine. */
export interface Offer extends SignedVersion {
  folder: WebFolder;
  line: CurrentLine;
  app: string;
}

/** What an answer is checked against. */
interface Known {
  state: LaunchState;
  /** `app.name`. */
  app: string | undefined;
  /** The release that `current` names. */
  current: string | undefined;
  platform: string;
  allowDowngrade: boolean | undefined;
}

/**
 * Ask the web folders what is current. All are asked, since one that shows an old VERSION must not hide a newer one.
 * @param conditional answer `unchanged` when VERSION is the one that was dealt with last.
 * @throws {Refused} when no folder has a VERSION that may be taken, with each one's reason.
 */
export async function findUpdate(session: Session, { conditional = false } = {}): Promise<Update> {
  const { deploy, state, config, options, folders, trust } = session;
  const known: Known = {
    state,
    app: config.app.name,
    current: await currentRelease(deploy),
    platform: options.platform ?? thisPlatform(process.platform, await isMusl()),
    allowDowngrade: options.allowDowngrade,
  };
  // several folders do not have one state by which they could be unchanged
  const mayAsk = conditional && folders.length === 1;
  const asked = folders.map((folder) =>
    folder.version((version) => trust.verifyVersion(folder, version), mayAsk ? state.etags[folder.url] : undefined),
  );
  const answers = await Promise.allSettled(asked);
  options.signal?.throwIfAborted();
  const good: Offer[] = [];
  const failed: unknown[] = [];
  for (const [at, folder] of folders.entries())
    try {
      const answer = answers[at] as (typeof answers)[number];
      if (answer.status === "rejected") throw answer.reason;
      if (!answer.value) {
        checkExpiry(state.expires, folder.name("VERSION"));
        return { kind: "unchanged", name: "", app: state.app ?? "", version: "", offers: [] };
      }
      // all by the keys of the end: what the last one showed of them holds for the first one, too
      trust.checkSigner(folder, answer.value);
      good.push(readOffer(folder, answer.value, known));
    } catch (error) {
      failed.push(error);
    }
  const offers = sameOffers(good);
  const [best] = offers;
  if (!best) throw allFailed(failed);
  for (const error of failed) options.note(`${messageOf(error)}; another server is taken`);
  const { app, line, signature } = best;
  const { release, expires } = best.file;
  const name = `${app}-${line.version}`;
  return {
    kind: known.current === name && !mustReplace(state, best) ? "current" : "new",
    ...{ name, app, version: line.version, offers, sha256: offeredSha256(state, best) },
    ...(release === undefined ? {} : { release }),
    ...(signature && expires ? { expires } : {}),
  };
}

/** Check one folder's VERSION against what is known here. */
function readOffer(
  folder: WebFolder,
  version: SignedVersion,
  { state, platform, allowDowngrade, app: configured }: Known,
): Offer {
  const name = folder.name("VERSION");
  const { file, signature } = version;
  checkVersion(state, version, name, { allowDowngrade });
  const line = currentFor(file, platform, name);
  // without a signature over it, nothing else in VERSION counts
  const inName = readArchiveName(line.file, line.version)?.app;
  const wanted = configured ?? state.app;
  const app = (signature ? file.app : undefined) ?? inName ?? wanted;
  if (app === undefined) throw new Refused(`${name} does not tell the app's name; give app.name in launchify.yml`);
  for (const said of [app, inName])
    if (wanted !== undefined && said !== undefined && said !== wanted)
      throw new Refused(`${name} is for the app ${said}, not for ${wanted} (wrong software)`);
  checkLine(state, { line, signature }, name);
  return { ...version, folder, line, app };
}

/** The offers of one archive, which several mirrors may have: that of the newest VERSION, else of the first server. */
function sameOffers(offers: readonly Offer[]): Offer[] {
  const dated = ({ file }: Offer) => file.date?.getTime() ?? 0;
  const signedAt = ({ signature }: Offer) => signature?.created.getTime() ?? 0;
  const signed = offers.filter(({ signature }) => signature);
  signed.sort((a, b) => dated(b) - dated(a) || signedAt(b) - signedAt(a));
  const ordered = signed.length > 0 ? signed : offers;
  const best = ordered[0]?.line;
  return ordered.filter(({ line }) => line.version === best?.version && line.sha256 === best.sha256);
}

/** One error for what each of several servers said. */
export function allFailed(errors: readonly unknown[]): Error {
  const [first] = errors;
  const bug = errors.find((error) => !(error instanceof Failure) && !(error instanceof Refused));
  if (bug !== undefined) return bug as Error;
  if (errors.length === 1) return first as Error;
  const text = errors.map(messageOf).join("\n");
  return errors.some((error) => error instanceof Refused) ? new Refused(text) : new Failure(text);
}

/** musl is the C library where its loader is there and glibc's is not (process.report tells too, but slowly). */
async function isMusl(): Promise<boolean> {
  const folders = await Promise.all(["/lib", "/lib64"].map((path) => readdir(path).catch(() => [])));
  const has = (start: string) => folders.flat().some((name) => name.startsWith(start));
  return has("ld-musl-") && !has("ld-linux");
}

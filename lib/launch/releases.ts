import type { AppSettings } from "./app-keeper.ts";

/** What the update server offers. */
export interface Offer {
  version: string;
  /** false: it is the current one. */
  isNew: boolean;
  /** A digest of the VERSION file it stands in. */
  id: string;
}

/** The deploy directory and the update server, as the installing half has them. */
export interface Releases {
  /** The version that `current` names. */
  current(): Promise<string | undefined>;
  /**
   * What the update server has, or undefined when that has not changed since `done`.
   * Throws what speaks against it (Refused, Failure).
   */
  offer(how: { conditional: boolean }): Promise<Offer | undefined>;
  /** Download, verify, unpack to `releases/`; the release's folder. Nothing of the running version changes. */
  prepare(offer: Offer): Promise<string>;
  /** All that the offer asks for is done: it need not be read again until it changes. */
  done(offer: Offer): Promise<void>;
  /** Make `current` name this version, in one step. */
  activate(version: string): Promise<void>;
  /** Installed versions, the newest first. */
  installed(): Promise<string[]>;
  /** Remove older versions, all but `keep` of them and those named. */
  prune(protectedVersions: string[]): Promise<void>;
  /** The settings of an installed version. */
  settings(version: string): Promise<AppSettings>;
}

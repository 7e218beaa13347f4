/** The toolkit's version; a test holds it equal to package.json's. */
export const version = "0.2.0";

/** Which version a script is, and the commit that it was bundled from. */
export interface Build {
  version: string;
  /** Undefined: run from the sources, or bundled outside of a git checkout. */
  commit?: string | undefined;
  /** When that commit was made, as 2026-11-22T10:15:00Z. */
  date?: string | undefined;
  /** The checkout had changes that were not committed. */
  changed?: boolean | undefined;
}

/** What `tools/bundle.ts` puts in its place. */
declare const bundledBuild: Build | undefined;

/** The build that is running. */
export const thisBuild: Build = typeof bundledBuild === "undefined" ? { version } : bundledBuild;

/** `0.1.0 (commit a7b5aaf12345 of 2026-11-22T10:15:00Z)` */
export function formatBuild({ version, commit, date, changed }: Build): string {
  if (commit === undefined) return version;
  return `${version} (commit ${commit} of ${date}${changed ? ", with changes" : ""})`;
}

/** A line that stands near the top of every bundle, so that `head` tells what a file is without running it. */
export function buildLine(build: Build): string {
  return `// Boatyard ${formatBuild(build)}`;
}

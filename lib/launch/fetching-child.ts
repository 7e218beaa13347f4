import process from "node:process";
import { findScript } from "../exec/scripts.ts";
import { Busy, Failure, Refused, UsageError } from "../core/errors.ts";
import { cleanEnvironment, run } from "../exec/exec.ts";
import type { DeployDirectory } from "./deploy-directory.ts";
import type { InstallOptions } from "./session.ts";
import type { Offer } from "./releases.ts";
import { WebReleases } from "./web-releases.ts";

/** What `launchfit fetch --json` prints. */
export interface Fetched extends Offer {
  /** The release's folder, when it was asked for. */
  folder?: string;
}

/**
 * The update server by way of `launchfit fetch`, a child: OpenPGP, HTTP and tar come and go with it, and the
 * launchfit that only watches an app stays as small as it was (bench/launch.ts: 58 MB, else 86 MB).
 */
export class ReleasesByChild extends WebReleases {
  readonly #folder: string;
  readonly #options: InstallOptions;

  constructor(deploy: DeployDirectory, options: InstallOptions) {
    super(deploy, options);
    this.#folder = deploy.path;
    this.#options = options;
  }

  override async offer({ conditional }: { conditional: boolean }): Promise<Offer | undefined> {
    return this.#fetch(["--look", ...(conditional ? ["--conditional"] : [])]);
  }

  override async prepare({ version }: Offer): Promise<string> {
    const fetched = await this.#fetch([]);
    if (fetched?.version !== version || fetched.folder === undefined) {
      throw new Failure(`${version} is no longer offered; the next check takes what is`);
    }
    return fetched.folder;
  }

  override async done(): Promise<void> {
    // the next look finds it to be the current one, and remembers that
  }

  async #fetch(flags: string[]): Promise<Fetched | undefined> {
    const { key, keyFile, timeout, allowDowngrade, signal } = this.#options;
    const given = [
      ...(key === undefined ? [] : [`--key=${key}`]),
      ...(keyFile === undefined ? [] : [`--key-file=${keyFile}`]),
      ...(timeout === undefined ? [] : [`--timeout=${timeout}ms`]),
      ...(allowDowngrade ? ["--allow-downgrade"] : []),
    ];
    const argv = [...(await findScript("launchfit")), "fetch", `--dir=${this.#folder}`, "--json"];
    const { code, stdout, stderr } = await run([...argv, ...flags, ...given], {
      env: cleanEnvironment({ GNUPGHOME: process.env.GNUPGHOME }),
      check: false,
      signal,
    });
    if (code === 0) return (JSON.parse(stdout) as { offer?: Fetched }).offer;
    const lines = stderr.trim().split("\n");
    const words = lines.filter((line) => line.startsWith("launchfit: "));
    const text = words.map((line) => line.slice("launchfit: ".length)).join("\n") || stderr.trim();
    if (code === 4) throw new Refused(text);
    if (code === 3) throw new Busy(text);
    if (code === 2) throw new UsageError(text);
    throw new Failure(text || "the look for a new version was ended");
  }
}

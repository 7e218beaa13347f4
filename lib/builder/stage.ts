import type { Checkout } from "../git/checkout.ts";

/** What a stage of a build knows of its folder and run. */
export interface BuildContext {
  /** The folder that is built. */
  dir: string;
  /** Undefined for a folder that is not a git checkout. */
  checkout?: Checkout | undefined;
  /** Where records are kept that are not the repo's business. */
  state: string;
  /** The complete environment of what a stage runs. */
  env: Readonly<Record<string, string>>;
  /** Stages do not skip themselves. */
  force: boolean;
  /** The run's id. */
  run: string;
}

import type { Checkout } from "../git/checkout.ts";

/** What a stage knows when it looks whether there is work for it. */
export interface Site {
  /** The folder that is built. */
  dir: string;
  /** Undefined for a folder that is no git checkout. */
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

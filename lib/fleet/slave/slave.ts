import type { KeyObject } from "node:crypto";
import { join } from "node:path";
import { messageOf } from "../../core/errors.ts";
import { HttpError } from "../../http/server.ts";
import type { SignedOrder } from "../order.ts";
import { branchOf, isAllowed } from "../settings.ts";
import { Inventory, type InventoryOptions } from "./inventory.ts";
import { type Job, Jobs, type Wanted } from "./jobs.ts";
import { Orders } from "./taken-once.ts";

/** A slave: what it was asked for and what it serves, however it is asked. */

export interface SlaveOptions extends InventoryOptions {
  /** Jobs, orders and nonces. */
  state: string;
  jobs: number;
  queue: number;
  /** Public keys of masters. */
  keys: readonly KeyObject[];
  /** Its own key, which signs its answers. */
  identity: KeyObject | undefined;
  /** Do one update; throws with the reason when it fails. */
  run: (job: Job) => Promise<{ before?: string | undefined; sha: string }>;
  note: (line: string) => void;
}

export interface Slave {
  options: SlaveOptions;
  jobs: Jobs;
  inventory: Inventory;
  /**
   * Start or join a job, once what was asked for is known to be allowed.
   * @param by who asked, for the log
   * @returns its id
   * @throws {HttpError} with the reason, when it is not taken
   */
  take(wanted: Omit<Wanted, "order">, by: string, order?: SignedOrder): Promise<string>;
}

/** Read what an earlier server left, and go on with it. */
export async function openSlave(options: SlaveOptions): Promise<Slave> {
  const { note, settings, allow } = options;
  const jobs = new Jobs({
    dir: join(options.state, "jobs"),
    jobs: options.jobs,
    queue: options.queue,
    run: options.run,
    onError: (error) => note(`job: ${messageOf(error)}`),
  });
  const orders = new Orders(join(options.state, "orders"));
  await jobs.open();
  await orders.open(
    jobs.all().flatMap(({ repo, job, order }) => (order ? [{ repo, job, ...order }] : [])),
  );

  async function take(
    wanted: Omit<Wanted, "order">,
    by: string,
    signed?: SignedOrder,
  ): Promise<string> {
    const { repo, sha, branch } = wanted;
    if (!isAllowed(repo, allow)) throw new HttpError(403, `repo "${repo}" is not allowed here`);
    const own = branchOf(repo, settings);
    if (branch !== undefined && own !== undefined && branch !== own)
      throw new HttpError(
        409,
        `this slave serves ${own} of ${repo}, as its slave.yml says, not ${branch}`,
      );
    let isNew = signed === undefined;
    const start = async (order?: Wanted["order"]) => {
      isNew = true;
      return await jobs.request({ ...wanted, order });
    };
    const job = signed
      ? await orders.take(signed, () =>
          start({ key: signed.key, at: signed.order.at, signature: signed.signature }),
        )
      : (await start()).job;
    const who = signed ? `run ${signed.order.run} of the master with key ${signed.key}` : by;
    const again = isNew ? "" : ", again";
    note(`${job} ${repo}${sha === undefined ? "" : ` ${sha}`} requested by ${who}${again}`);
    return job;
  }
  return { options, jobs, inventory: new Inventory(options, jobs), take };
}

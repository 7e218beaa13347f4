/**
 * The fleet: a master tells its slaves that a repo changed (master/), a slave answers at once (slave/) and brings
 * the repo up to date (repo/). Scripts import this file only.
 */
export { writeKey } from "./order.ts";
export { serverUpdate } from "./master/update.ts";
export { activate, rollBack } from "./repo/activate.ts";
export { checkRepo, checkUser, readSettings, settingsFor } from "./settings.ts";
export { startSlaveServer } from "./slave/server.ts";

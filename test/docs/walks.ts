// Pages, and who types them in: on a machine of test/helpers/machine.ts, or a booted Debian.
import type { Machine } from "../helpers/machine.ts";
import { walkApp } from "./app.walk.ts";
import { walkCopying } from "./copying.walk.ts";
import { walkFleet } from "./fleet.walk.ts";
import { walkOperations } from "./operations.walk.ts";
import { walkServer } from "./server.walk.ts";

export type Walk = (machine: Machine, another: () => Promise<Machine>) => Promise<void>;

export const walks: Record<string, Walk> = {
  "self-updating.md": walkApp,
  "copying.md": walkCopying,
  "fleet.md": walkFleet,
  "operations.md": walkOperations,
  "server.md": walkServer,
};

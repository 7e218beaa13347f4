// Ways in which the product could be broken so that users are hurt, each with the tests that must notice it.
import { build } from "./build.ts";
import { disk } from "./disk.ts";
import { fleet } from "./fleet.ts";
import { ground } from "./ground.ts";
import { launch } from "./launch.ts";
import { receive } from "./receive.ts";
import { shown } from "./shown.ts";
import type { Mutation } from "./mutation.ts";
import { transfer } from "./transfer.ts";

export const mutations: readonly Mutation[] = [
  ...disk,
  ...receive,
  ...build,
  ...transfer,
  ...fleet,
  ...launch,
  ...shown,
  ...ground,
];

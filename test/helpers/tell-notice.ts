// Tells one notice and sends it, as a process that can be killed: FOLDER URL.
import process from "node:process";
import { createMask } from "../../lib/core/mask.ts";
import { parseConfig } from "../../lib/config/yaml.ts";
import { Outbox, notifySchema, readTargets } from "../../lib/notify/notify.ts";

const [folder = "", url = ""] = process.argv.slice(2);
const yaml = `[{ webhook: { url: "${url}" } }]`;
const config = await parseConfig(yaml, "notify.yml", notifySchema);
const path = (text: string) => text;
const outbox = await Outbox.open({
  folder,
  targets: await readTargets(config.value, { where: () => "", path }),
  mask: createMask([]),
  log: console.error,
});
await outbox.tell({
  ...{ id: "run-1", by: "hook-server", subject: "me/site main", outcome: "failed" },
  ...{ what: "push failed", at: "2026-11-20T10:15:09.871Z" },
});
await outbox.flush(20_000);
await outbox.close();

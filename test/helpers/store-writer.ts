// Has a hook-server's store write its file anew, as after damage: `store-writer.ts FOLDER`.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { FileStore } from "../../lib/run-store/file-store.ts";

const folder = process.argv[2] ?? "";
writeFileSync(join(folder, "runs.jsonl"), "a foreign line\n");
const store = await FileStore.open(folder, () => {});
const source = { repo: "me/site", forge: "github", event: "push" };
await store.accept(source, [{ kind: "push", ref: "refs/heads/main", sha: "a".repeat(40) }], Buffer.from("{}"));
await store.close();

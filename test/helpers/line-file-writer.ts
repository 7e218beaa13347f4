// Appends lines to a file of hook-server's store from several sides at once, and prints which were stored and which
// were refused, each at once: line-file-writer.ts FILE COUNT
import { writeSync } from "node:fs";
import process from "node:process";
import { LineFile } from "../../lib/hook/store/line-file.ts";
import type { Place } from "../../lib/hook/store/lines.ts";

const [path = "", count = ""] = process.argv.slice(2);
const say = (text: string) => writeSync(1, `${text}\n`);
const inUse = new Map<Place, true>();
const { file } = await LineFile.open(path, {
  isNew: true,
  warn: say,
  kept: () => ({ places: [...inUse.keys()], heads: [] }),
  minSettled: 3000,
});
let next = 0;
const writer = async () => {
  while (next < Number(count)) {
    const n = next++;
    const payload = Buffer.from(JSON.stringify({ n, filler: "x".repeat(100) }));
    await file
      // every fifth is in use for ever, the others are settled at once
      .append({ n }, payload, (place) => n % 5 === 0 && inUse.set(place, true))
      .then(
        () => say(`stored ${n}`),
        () => say(`refused ${n}`),
      );
  }
};
await Promise.all([writer(), writer(), writer()]);
await file.close();
say("done");

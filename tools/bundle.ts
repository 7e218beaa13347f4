import { readdir } from "node:fs/promises";
console.log(`nothing to bundle: ${(await readdir(".")).length}`);

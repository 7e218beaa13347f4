import process from "node:process";
import { isPermissionDenied, messageOf } from "./errors.ts";

// Imported before chalk and zx, which read the environment as they are loaded: what Deno says there would be a stack
// trace that no try statement could turn into a line.
try {
  void process.env["TF_BUILD"];
} catch (error) {
  if (!isPermissionDenied(error)) throw error;
  process.stderr.write(`${messageOf(error)}\n`);
  process.exit(2);
}

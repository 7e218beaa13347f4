import process from "node:process";
import { isPermissionDenied, messageOf } from "../core/errors.ts";

// Imported before chalk, which reads the environment while it is loaded: what Deno says there would be a stack trace
// that nobody's try statement could turn into a line.
try {
  void process.env["TF_BUILD"];
} catch (error) {
  if (!isPermissionDenied(error)) throw error;
  process.stderr.write(`${messageOf(error)}\n`);
  process.exit(2);
}

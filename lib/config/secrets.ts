import { open } from "node:fs/promises";
import process from "node:process";
import { messageOf, systemCode, UsageError } from "../core/errors.ts";

/**
 * A secret from a file, less the line end that editors add.
 * @param where `file:line:col` of the place that names it, for messages.
 * @throws {UsageError} when it cannot be read, is empty, or when others than its owner and group can read it.
 */
export async function readSecretFile(path: string, where = ""): Promise<string> {
  const prefix = where === "" ? "" : `${where}: `;
  let file: Awaited<ReturnType<typeof open>> | undefined;
  try {
    file = await open(path);
    const found = await file.stat();
    // what its mode should be is not the matter then
    if (!found.isFile() && !found.isFIFO())
      throw new UsageError(`${prefix}secret file ${path} is not a file; name the file`);
    if (found.mode & 0o007)
      throw new UsageError(`${prefix}secret file ${path} can be read by everybody; run: chmod 600 ${path}`);
    const secret = (await file.readFile("utf8")).replace(/\r?\n$/, "");
    if (secret === "") throw new UsageError(`${prefix}secret file ${path} is empty; put the secret into it`);
    return secret;
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const why =
      systemCode(error) === "ENOENT" ? "does not exist" : `cannot be read (${systemCode(error) ?? messageOf(error)})`;
    throw new UsageError(`${prefix}secret file ${path} ${why}; make it with mode 600`);
  } finally {
    await file?.close();
  }
}

/**
 * A secret from the environment.
 * @throws {UsageError} when the variable is not set.
 */
export function readSecretVariable(name: string, where = ""): string {
  const secret = process.env[name];
  if (secret) return secret;
  throw new UsageError(
    `${where === "" ? "" : `${where}: `}environment variable ${name} is not set; put the secret into it`,
  );
}

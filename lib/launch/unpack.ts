import { Failure, messageOf, Refused, systemCode } from "../core/errors.ts";
import { readPieces } from "../files/files.ts";
import { readTarGz, type TarLimits, tarLimits } from "../archive/tar.ts";
import { TreeWriter } from "./tree-writer.ts";

/**
 * Unpack the archive that is open as `fd` into `folder`, which is empty. The caller removes it when this throws.
 * @param name the archive's, for messages.
 * @throws {Refused} when an entry breaks a rule, with the entry's name; or when it is not a whole tar.gz.
 * @throws {Failure} when the disk is full and the like.
 */
export async function unpack(
  fd: number,
  folder: string,
  name: string,
  { limits = tarLimits, signal }: { limits?: TarLimits; signal?: AbortSignal | undefined } = {},
): Promise<{ entries: number; bytes: number }> {
  const tree = new TreeWriter(folder, limits);
  try {
    await readTarGz(readPieces(fd), (entry) => tree.add(entry), { limits, signal });
    tree.finish();
    return { entries: tree.entries, bytes: tree.bytes };
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof Refused) throw new Refused(`${name} is not unpacked: ${error.message}`);
    if (systemCode(error) === undefined) throw error;
    throw new Failure(`${name} cannot be unpacked: ${messageOf(error)}`);
  } finally {
    tree.close();
  }
}

import { messageOf, UsageError } from "../core/errors.ts";
import { fingerprintOf, loadOpenpgp, type PrivateKey, type SignedData, signedMessage } from "./keys.ts";

/** Making OpenPGP keys and detached signatures. */

/** Make a signing key (ed25519). The result is armored; `expires` in milliseconds, default never. */
export async function generateSigningKey({
  name,
  email,
  passphrase,
}: {
  name: string;
  email?: string | undefined;
  passphrase?: string | undefined;
}): Promise<{ privateKey: string; fingerprint: string }> {
  const { generateKey, readPrivateKey, enums } = await loadOpenpgp();
  const { privateKey } = await generateKey({
    // the older ed25519 form: gpg 2.2 reads it
    type: "ecc",
    curve: "ed25519Legacy",
    userIDs: [{ name, ...(email === undefined ? {} : { email }) }],
    subkeys: [],
    format: "armored",
    ...(passphrase === undefined ? {} : { passphrase }),
    config: { preferredHashAlgorithm: enums.hash.sha256 },
  });
  const key = await readPrivateKey({ armoredKey: privateKey });
  return { privateKey, fingerprint: fingerprintOf(key) };
}

/**
 * Read a private key and open it.
 * @param passphrase asked for only when the key has one.
 * @throws {UsageError} when it is not a private key, or the passphrase is wrong.
 */
export async function openPrivateKey(
  data: Uint8Array,
  name: string,
  passphrase: () => Promise<string>,
): Promise<PrivateKey> {
  const { readPrivateKey, decryptKey } = await loadOpenpgp();
  let key: PrivateKey;
  try {
    const text = Buffer.from(data).toString("latin1");
    key = text.trimStart().startsWith("-----BEGIN PGP")
      ? await readPrivateKey({ armoredKey: text })
      : await readPrivateKey({ binaryKey: new Uint8Array(data) });
  } catch (error) {
    throw new UsageError(`${name} is not an OpenPGP private key (${messageOf(error)})`);
  }
  if (key.isDecrypted()) return key;
  try {
    return await decryptKey({ privateKey: key, passphrase: await passphrase() });
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`the passphrase for ${name} is wrong`);
  }
}

/**
 * A detached binary signature, with a hash of at least SHA-256 (ed25519 takes SHA-512).
 * @param notations put into the signature, `name@domain` → value.
 */
export async function signDetached(
  key: PrivateKey,
  data: SignedData,
  notations: Record<string, string> = {},
  date = new Date(),
): Promise<Uint8Array> {
  const { sign, enums } = await loadOpenpgp();
  const signature = await sign({
    message: await signedMessage(data),
    signingKeys: key,
    detached: true,
    format: "binary",
    date,
    signatureNotations: Object.entries(notations).map(([name, value]) => ({
      name,
      value: new Uint8Array(Buffer.from(value)),
      humanReadable: true,
      critical: false,
    })),
    config: { preferredHashAlgorithm: enums.hash.sha256 },
  });
  const chunks: Uint8Array[] = [];
  for await (const chunk of signature as AsyncIterable<Uint8Array>) chunks.push(chunk);
  return new Uint8Array(Buffer.concat(chunks));
}

import { messageOf, UsageError } from "../core/errors.ts";
import {
  fingerprintOf,
  loadOpenpgp,
  type OpenpgpLibrary,
  type PrivateKey,
  type RawNotation,
  type SignaturePacket,
} from "./keys.ts";
import { Digests } from "./digest.ts";

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
 * @throws {UsageError} when it is no private key, or the passphrase is wrong.
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
    throw new UsageError(`${name} is no OpenPGP private key (${messageOf(error)})`);
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
 * A detached binary signature. Its hash is SHA-256 where the key's kind allows it (ed25519 asks for SHA-512).
 * @param notations put into the signature, `name@domain` → value.
 */
export async function signDetached(
  key: PrivateKey,
  data: Uint8Array | AsyncIterable<Uint8Array>,
  notations: Record<string, string> = {},
  date = new Date(),
): Promise<Uint8Array> {
  const library = await loadOpenpgp();
  const { createMessage, sign, enums } = library;
  const signatureNotations = Object.entries(notations).map(([name, value]) => ({
    name,
    value: new Uint8Array(Buffer.from(value)),
    humanReadable: true,
    critical: false,
  }));
  const withSha256 = await signWithSha256(library, key, data, signatureNotations, date);
  if (withSha256) return withSha256;
  const binary = data instanceof Uint8Array ? new Uint8Array(data) : webStream(data);
  const signature: unknown = await sign({
    message: await createMessage({ binary }),
    signingKeys: key,
    detached: true,
    format: "binary",
    date,
    signatureNotations,
    config: { preferredHashAlgorithm: enums.hash.sha256 },
  });
  if (signature instanceof Uint8Array) return signature;
  const chunks: Uint8Array[] = [];
  const reader = (signature as ReadableStream<Uint8Array>).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(Buffer.concat(chunks));
    chunks.push(value);
  }
}

/**
 * ed25519 with SHA-256, which RFC 9580 (5.2.3.3) allows and gpg takes. The package's own `sign` would choose SHA-512,
 * which takes every client twice as long; and the digest is made by node:crypto, as for `verify`.
 * Undefined: a key of another kind.
 */
async function signWithSha256(
  { config, enums, PacketList, Signature, SignaturePacket }: OpenpgpLibrary,
  key: PrivateKey,
  data: Uint8Array | AsyncIterable<Uint8Array>,
  notations: RawNotation[],
  date: Date,
): Promise<Uint8Array | undefined> {
  const { keyPacket } = await key.getSigningKey(undefined, date);
  if (keyPacket.algorithm !== enums.publicKey.eddsaLegacy || keyPacket.version !== 4)
    return undefined;
  const packet = Object.assign(new SignaturePacket(), {
    signatureType: enums.signature.binary,
    publicKeyAlgorithm: keyPacket.algorithm,
    hashAlgorithm: enums.hash.sha256,
    rawNotations: notations,
  });
  const digests = new Digests([packet]);
  if (data instanceof Uint8Array) digests.update(data);
  else for await (const chunk of data) digests.update(chunk);
  // by then the packet's own part is made, which is signed after the data
  Object.assign(packet, { hash: async () => digests.of(packet) });
  const { packets: empty } = await (await loadOpenpgp()).createMessage({
    binary: new Uint8Array(),
  });
  // its types lack the last operand
  const sign = packet.sign.bind(packet) as (...operands: unknown[]) => Promise<void>;
  await sign(keyPacket, (empty as unknown as object[])[0], date, true, config);
  const packets = new PacketList<SignaturePacket>();
  packets.push(packet);
  return new Signature(packets).write() as Uint8Array;
}

function webStream(data: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const iterator = data[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(new Uint8Array(value));
    },
  });
}

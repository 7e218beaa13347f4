import { UsageError } from "../core/errors.ts";

/**
 * A name as one word of a NATS subject. A slave's is its key in the buckets `orders` and `reports`: one value has all
 * repos' orders for it, so it reads them by name. A key for each repo would need consumers on the server to find them:
 * for 1,000 slaves that is ten times the processor time, and several hundred MB.
 */
export function nameOnBus(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9_-]/g, (char) => {
    return `=${char.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

/**
 * An address that may be used: encrypted, or on this machine.
 * @param where `file:line:column` of the place that names it
 * @throws {UsageError}
 */
export function checkBusUrl(text: string, where?: string): string {
  const at = where === undefined ? "" : `${where}: `;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isPlain = url !== undefined && /^[a-z]+:\/\/[^/@?#]+$/.test(text);
  if (!isPlain || !["tls:", "nats:"].includes(url.protocol))
    throw new UsageError(`${at}"${text}" is not the address of a bus; write tls://HOST:4222`);
  if (url.protocol === "nats:" && !/^(?:127\.[\d.]+|localhost|\[::1\])$/.test(url.hostname))
    throw new UsageError(`${at}"${text}" is not encrypted; write tls:// (nats:// is for a bus on this machine)`);
  return text;
}

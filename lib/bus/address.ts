import { UsageError } from "../core/errors.ts";

/** A name as one word of a NATS subject. */
export function nameOnBus(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9_-]/g, (char) => {
    return `=${char.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

/**
 * An address that may be used: encrypted, or on this machine.
 * @throws {UsageError}
 */
export function checkBusUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isPlain = url !== undefined && /^[a-z]+:\/\/[^/@?#]+$/.test(text);
  if (!isPlain || !["tls:", "nats:"].includes(url.protocol))
    throw new UsageError(`"${text}" is not the address of a bus; write tls://HOST:4222`);
  if (url.protocol === "nats:" && !/^(?:127\.[\d.]+|localhost|\[::1\])$/.test(url.hostname))
    throw new UsageError(
      `"${text}" is not encrypted; write tls:// (nats:// is for a bus on this machine)`,
    );
  return text;
}

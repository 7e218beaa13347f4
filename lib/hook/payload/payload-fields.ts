/** How a payload is looked into: it is JSON of somebody else, of any shape. */

type Json = Record<string, unknown>;

export function object(value: unknown): Json | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : undefined;
}

/** An own property, so that `constructor` and `__proto__` are names like any other. */
export function get(from: unknown, ...path: string[]): unknown {
  let value: unknown = from;
  for (const key of path) {
    const holder = object(value);
    if (!holder || !Object.hasOwn(holder, key)) return undefined;
    value = holder[key];
  }
  return value;
}

export function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** The first `max` characters of a text, as a copy: V8's part of a text keeps all of it in memory. */
export function beginning(value: string, max: number): string {
  return Buffer.from(value.slice(0, max)).toString();
}

import { Buffer } from "node:buffer";

/** Replaces secrets by `***`, also in the shapes in which tools print them. */
export interface Mask {
  (text: string): string;
  /** Where in the text secrets are: from, and up to; in order, none touches another. */
  spans: (text: string) => readonly (readonly [start: number, end: number])[];
}

const minLength = 4;

/**
 * A mask for some secrets: as they are, JSON-escaped, percent-encoded, in hex, and in base64 wherever
 * in a longer base64 text they may stand. A secret of several lines is masked line by line, since logs
 * are read by lines. Secrets under four characters cannot be told apart from text and are left alone.
 */
export function createMask(secrets: Iterable<string>): Mask {
  const shapes = new Set<string>();
  for (const secret of secrets) {
    for (const line of [secret, ...secret.split(/\r?\n/)]) {
      if (line.trim().length < minLength) continue;
      for (const shape of shapesOf(line.trim() === line ? line : line.trim())) shapes.add(shape);
    }
  }
  const spans = (text: string) => merged([...shapes].flatMap((shape) => placesOf(shape, text)));
  const mask = (text: string) => {
    let shown = "";
    let at = 0;
    for (const [start, end] of spans(text)) {
      shown += `${text.slice(at, start)}***`;
      at = end;
    }
    return shown + text.slice(at);
  };
  return Object.assign(mask, { spans });
}

type Span = [start: number, end: number];

function placesOf(shape: string, text: string): Span[] {
  const places: Span[] = [];
  for (let at = text.indexOf(shape); at >= 0; at = text.indexOf(shape, at + 1)) places.push([at, at + shape.length]);
  return places;
}

/** Spans in order, those that overlap or touch as one: of two secrets that share characters no part is left. */
function merged(spans: Span[]): Span[] {
  const result: Span[] = [];
  for (const [start, end] of spans.sort(([a], [b]) => a - b)) {
    const last = result.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else result.push([start, end]);
  }
  return result;
}

function shapesOf(secret: string): string[] {
  const bytes = Buffer.from(secret);
  const shapes = [secret, encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1), bytes.toString("hex")];
  // three bytes become four characters: where the secret starts within them decides how it looks
  for (const before of [0, 1, 2]) {
    const text = Buffer.concat([Buffer.alloc(before), bytes])
      .toString("base64")
      .replace(/=+$/, "");
    const inner = text.slice(before === 0 ? 0 : before + 1, (bytes.length + before) % 3 === 0 ? undefined : -1);
    if (inner.length >= 6) shapes.push(inner, inner.replaceAll("+", "-").replaceAll("/", "_"));
  }
  return shapes;
}

/** A time (ms since 1970) as ISO 8601 text, in UTC. Those who ask within one millisecond share the text. */
export function isoTime(ms: number): string {
  if (ms !== last.ms) last = { ms, text: new Date(ms).toISOString() };
  return last.text;
}

let last = { ms: Number.NaN, text: "" };

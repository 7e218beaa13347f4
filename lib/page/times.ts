import { shortAge, shortDuration } from "./clocks.ts";
import { html, type Html } from "./html.ts";

export { counted, shortAge, shortDuration } from "./clocks.ts";

/** Times and durations, for those who read and for the script that keeps them moving. */

/** `2026-11-20 10:15:00 UTC`. */
export function fullTime(iso: string): string {
  return Number.isNaN(Date.parse(iso)) ? iso : `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`;
}

/** A time that says how long ago it was. */
export function ago(iso: string | undefined, now: number): Html | undefined {
  if (iso === undefined || Number.isNaN(Date.parse(iso))) return undefined;
  return html`<time datetime="${iso}" title="${fullTime(iso)}" data-ago>${shortAge(Date.parse(iso), now)}</time>`;
}

/** A clock that runs since a time. */
export function clock(iso: string | undefined, now: number): Html | undefined {
  if (iso === undefined || Number.isNaN(Date.parse(iso))) return undefined;
  const seconds = Math.max(0, now - Date.parse(iso)) / 1000;
  return html`<time datetime="${iso}" title="since ${fullTime(iso)}" data-clock>${shortDuration(seconds)}</time>`;
}

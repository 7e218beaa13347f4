import { html, type Html } from "./html.ts";

/** Times, durations and counts in words, for the server and for the script that keeps them moving. Pure. */

/** `0.4 s`, `12 s`, `3 m 05 s`, `2 h 07 m`. */
export function shortDuration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (value: number) => String(value).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} m`;
}

/** How long ago a time (ms) was, in one unit: `42 s ago`, `3 min ago`, `5 h ago`, `12 days ago`. */
export function shortAge(time: number, now: number): string {
  const seconds = Math.max(0, Math.floor((now - time) / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 2 * 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} days ago`;
}

/** `1 repo`, `2 repos`. */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

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

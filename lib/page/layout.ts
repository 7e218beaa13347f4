import { version } from "../core/version.ts";
import { boat, pageFiles } from "./files.ts";
import { html, type Html, type Value } from "./html.ts";
import type { Viewer } from "./viewer.ts";

/** What every page has: its frame. */

interface Shown {
  readonly title: string;
  readonly viewer: Viewer;
  /** The path of the page, for the navigation. */
  readonly path: string;
  readonly body: Html;
  /** For the script: what it does here. */
  readonly kind: string;
  /** The pages that the viewer may go to from each. */
  readonly links: readonly (readonly [path: string, text: string])[];
}

export function pageTitle(title: string): string {
  return `${title} · Boatyard`;
}

export function page({ title, viewer, path, body, kind, links }: Shown): Html {
  const { script, style } = pageFiles();
  return html`<!doctype html>
<html lang="en" data-now="${Date.now()}"><head><meta charset="utf-8"><title>${pageTitle(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<link rel="icon" href="/page/icon.svg" type="image/svg+xml"><link rel="stylesheet" href="/page/${style.name}">
<script type="module" src="/page/${script.name}"></script></head>
<body data-kind="${kind}"><a class="skip" href="#main">Skip to the content</a>
<header class="top"><nav aria-label="Pages"><a class="brand" href="/">${mark}<span>Boatyard</span></a>
${links.map(([to, text]) => html`<a href="${to}"${to === path && html` aria-current="page"`}>${text}</a>`)}</nav>
${who(viewer)}</header>
<main id="main" tabindex="-1">${body}</main>
<footer><span class="version">Boatyard ${version}</span><span id="link-state" role="status"></span></footer>
</body></html>
`;
}

const mark = html`<svg width="20" height="20" viewBox="0 0 20 20" aria-hidden="true">
<path class="mark" d="${boat}"/></svg>`;

function who({ name, session }: Viewer): Html {
  if (name === undefined) return html`<div class="who"><a href="/sign-in">Sign in</a></div>`;
  const form = html`<form method="post" action="/sign-out"><button class="quiet">Sign out</button></form>`;
  return html`<div class="who"><span>${name}</span>${session !== undefined && form}</div>`;
}

interface Table {
  readonly caption?: string;
  /** Before the name of one that holds numbers stands a `#`. */
  readonly columns: readonly string[];
  readonly rows: readonly Html[];
}

export function table(name: string, { caption, columns, rows }: Table): Html {
  const heads = columns.map(
    (each) => html`<th scope="col"${each.startsWith("#") && html` class="num"`}>${each.replace("#", "")}</th>`,
  );
  return html`<table class="${name}">${caption !== undefined && html`<caption class="away">${caption}</caption>`}
<thead><tr>${heads}</tr></thead>
<tbody>${rows}</tbody></table>`;
}

/** A state as a word with its colour. */
export function pill(state: string): Html {
  return html`<span class="pill ${state}">${state === "none" ? "no runs" : state}</span>`;
}

/** A page with one sentence and what to do. */
export function notice(title: string, ...lines: Value[]): Html {
  return html`<section class="notice"><h1>${title}</h1>${lines.map((line) => html`<p>${line}</p>`)}</section>`;
}

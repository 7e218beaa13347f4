import { version } from "../core/version.ts";
import { boat, pageFiles } from "./files.ts";
import { html, type Html, type Value } from "./html.ts";
import type { Viewer } from "./access.ts";

/** What every page has: its frame; and the pages that are of no subject. */

interface Shown {
  readonly title: string;
  readonly viewer: Viewer;
  /** The path of the page, for the navigation. */
  readonly path: string;
  readonly body: Html;
  /** For the script: what it does here. */
  readonly kind: string;
  /** What the icon in the tab shows. */
  readonly state: string;
  /** The pages that the viewer may go to from each. */
  readonly links: readonly (readonly [path: string, text: string])[];
}

export function pageTitle(title: string): string {
  return `${title} · Boatyard`;
}

export function frame({ title, viewer, path, body, kind, state, links }: Shown): Html {
  const { script, style } = pageFiles();
  return html`<!doctype html>
<html lang="en" data-now="${Date.now()}"><head><meta charset="utf-8"><title>${pageTitle(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
${iconLink(state)}<link rel="stylesheet" href="/page/${style.name}">
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

/** The icon of the tab, in the colour of a state. */
export function iconLink(state: string): Html {
  return html`<link rel="icon" href="/page/icon${state !== "" && `-${state}`}.svg" type="image/svg+xml">`;
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

/** A path of this server that somebody wanted to see; `/` for anything that could lead elsewhere. */
export function returnPath(text: string | null | undefined): string {
  // one slash, and no backslash, which browsers take for one
  return text && /^\/(?!\/)[\x21-\x5b\x5d-\x7e]{0,2000}$/.test(text) ? text : "/";
}

/** The form to sign in; `problem` says why a try was not taken. */
export function signInForm(to: string, problem = ""): Html {
  const wrong = html` aria-describedby="problem" aria-invalid="true"`;
  return html`<section class="signin"><h1>Sign in</h1>
<form method="post" action="/sign-in"><input type="hidden" name="to" value="${to}"><input class="away" name="username"
autocomplete="username" value="boatyard" tabindex="-1" aria-hidden="true" readonly>
<label for="secret">Password or token</label><input id="secret" name="secret" type="password"
autocomplete="current-password" required autofocus maxlength="1000"${problem !== "" && wrong}>
${problem !== "" && html`<p class="problem" id="problem" role="alert">${problem}</p>`}
<button class="main">Sign in</button></form></section>`;
}

/** A page with one sentence and what to do. */
export function notice(title: string, ...lines: Value[]): Html {
  return html`<section class="notice"><h1>${title}</h1>${lines.map((line) => html`<p>${line}</p>`)}</section>`;
}

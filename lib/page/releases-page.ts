import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf, systemCode } from "../core/errors.ts";
import { formatSize } from "../core/units.ts";
import { parseVersionFile, type VersionFile } from "../web-folder/version-file.ts";
import { html, type Html } from "./html.ts";
import { table } from "./layout.ts";
import { ago, fullTime } from "./times.ts";

/** What the web folders of `releases:` offer, as their VERSION files say. */

export async function releasesPage(folders: readonly string[], now: number): Promise<Html> {
  const parts = await Promise.all(folders.map((folder) => folderPart(folder, now)));
  return html`<div class="head"><h1>Releases</h1><p class="sum">What these web folders offer now.</p></div>${parts}`;
}

async function folderPart(folder: string, now: number): Promise<Html> {
  try {
    const text = await readFile(join(folder, "VERSION"), "utf8");
    return offered(folder, parseVersionFile(text, join(folder, "VERSION")), now);
  } catch (error) {
    const isMissing = systemCode(error) === "ENOENT";
    const why = isMissing ? "there is no VERSION yet; release pack makes it" : messageOf(error);
    return html`<section class="release"><h2>${folder}</h2><p class="reason failed">${why}</p></section>`;
  }
}

function offered(folder: string, file: VersionFile, now: number): Html {
  const expires = file.expires?.toISOString();
  const isOld = file.expires !== undefined && file.expires.getTime() < now;
  const release = file.release !== undefined && html` <span class="soft">${file.release}</span>`;
  const signed = file.date && html` · signed ${ago(file.date.toISOString(), now)}`;
  const until = isOld ? html`<strong class="bad">expired</strong>` : "expires";
  const rows = file.current.map(
    ({ version, platform = "any", file, size }) => html`<tr><th scope="row">${version}</th><td>${platform}</td>
<td class="sha">${file}</td><td class="num">${size !== undefined && formatSize(size)}</td></tr>
`,
  );
  return html`<section class="release"><h2>${file.app ?? folder}${release}</h2>
<p class="sum">${folder}${signed}${expires !== undefined && html` · ${until} ${fullTime(expires)}`}</p>
${table("releases", { columns: ["Version", "Platform", "Archive", "#Size"], rows })}</section>`;
}

import { escapeHtml } from "./html.ts";
import { hasResult, type Run } from "./source.ts";

/** A badge of a repo's last run that has ended, as SVG. The words are ours alone: nothing of a request stands in it. */
export function badge(runs: readonly Run[]): string {
  const last = runs.find(hasResult);
  const words: Record<string, [text: string, colour: string]> = {
    succeeded: ["passing", "#1a7f37"],
    failed: ["failing", "#b3261e"],
    cancelled: ["cancelled", "#5f6873"],
  };
  const [text, colour] = words[last?.state ?? ""] ?? ["no runs", "#5f6873"];
  const [left, right] = [42, 14 + text.length * 6.6];
  const width = Math.round(left + right);
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="20" role="img" aria-label="build: ${escapeHtml(text)}"><title>build: ${escapeHtml(text)}</title><clipPath id="r"><rect width="${width}" height="20" rx="4"/></clipPath><g clip-path="url(#r)"><rect width="${left}" height="20" fill="#3b434b"/><rect x="${left}" width="${width - left}" height="20" fill="${colour}"/></g><g fill="#fff" font-family="system-ui,sans-serif" font-size="11" text-anchor="middle"><text x="${left / 2}" y="14">build</text><text x="${left + right / 2}" y="14">${escapeHtml(text)}</text></g></svg>\n`;
}

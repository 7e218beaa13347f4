/** Parts of a page that came anew from the server. */

/**
 * Put a part in the place of the old one, without losing the focus. Where only times have moved on, the old one stays:
 * a reader is not disturbed for that. Returns whether it was put there.
 */
export function swap(old: Element | null, next: Element | null): boolean {
  if (!old || !next || timeless(old).isEqualNode(timeless(next))) return false;
  const focused = old.contains(document.activeElement)
    ? document.activeElement?.closest("a")?.getAttribute("href")
    : undefined;
  old.replaceWith(next);
  for (const link of next.querySelectorAll<HTMLElement>("a"))
    if (focused && link.getAttribute("href") === focused) {
      link.focus({ preventScroll: true });
      break;
    }
  return true;
}

function timeless(part: Element): Node {
  const copy = part.cloneNode(true) as Element;
  for (const time of copy.querySelectorAll("time")) time.textContent = "";
  return copy;
}

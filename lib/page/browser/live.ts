/** What comes anew from the server: events, and parts of the page. */

/** Say what has happened to those who look, and to screen readers. */
export function say(text: string): void {
  const where = document.querySelector("#link-state");
  if (where && where.textContent !== text) where.textContent = text;
}

/**
 * A stream of events that comes back, whatever ended it. One is open for a tab, and none while nobody looks at it.
 * @returns a function that closes it for good.
 */
export function openStream(
  address: () => string,
  on: Record<string, (data: string, id: string) => void>,
): () => void {
  let stream: EventSource | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isOver = false;
  let isLost = false;
  let pause = 500;
  const close = () => {
    clearTimeout(timer);
    stream?.close();
    stream = undefined;
  };
  const open = () => {
    close();
    if (isOver || document.hidden) return;
    const own = new EventSource(address());
    stream = own;
    own.onopen = () => {
      pause = 500;
      if (isLost) say("");
      isLost = false;
    };
    for (const [name, handle] of Object.entries(on))
      own.addEventListener(name, (event) => {
        if (stream === own) handle(event.data as string, event.lastEventId);
      });
    own.onerror = () => {
      // a browser gives up for good after an answer like 502: this does not, and says where it was
      if (stream !== own) return;
      isLost = true;
      say("Connection lost; trying again");
      if (own.readyState === EventSource.CLOSED) void reloadIfSignedOut();
      close();
      timer = setTimeout(open, pause + Math.random() * 300);
      pause = Math.min(pause * 2, 10_000);
    };
  };
  const look = () => (document.hidden ? close() : stream === undefined && open());
  document.addEventListener("visibilitychange", look);
  addEventListener("pagehide", close);
  addEventListener("pageshow", look);
  open();
  return () => {
    isOver = true;
    document.removeEventListener("visibilitychange", look);
    removeEventListener("pageshow", look);
    close();
  };
}

/** The stream was refused: whoever was signed out elsewhere, or by the clock, sees the form. */
async function reloadIfSignedOut(): Promise<void> {
  const answer = await fetch(location.href, { method: "HEAD" }).catch(() => undefined);
  if (answer?.status === 401) location.reload();
}

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

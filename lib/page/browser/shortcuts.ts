/** The name under which the browser remembers that somebody wants none. */
const setting = "shortcuts";

/** A key, what it does in a few words, and how. */
export type Shortcut = readonly [key: string, what: string, act: () => void];

/**
 * Let single keys act, and list them at the page's end, where they can be turned off: who speaks to the computer, or
 * often hits a key by mistake, needs that (WCAG 2.1.4).
 */
export function startShortcuts(shortcuts: readonly Shortcut[]): void {
  const details = document.createElement("details");
  details.className = "shortcuts";
  const summary = document.createElement("summary");
  summary.textContent = "Keyboard shortcuts";
  const list = document.createElement("dl");
  for (const [key, what] of shortcuts) {
    const [term, meaning] = [document.createElement("dt"), document.createElement("dd")];
    const sign = document.createElement("kbd");
    sign.textContent = key;
    term.append(sign);
    meaning.textContent = what;
    list.append(term, meaning);
  }
  const box = document.createElement("input");
  box.type = "checkbox";
  box.id = setting;
  box.checked = remembered() !== "off";
  box.addEventListener("change", () => remember(box.checked ? "on" : "off"));
  const label = document.createElement("label");
  label.append(box, " Use these keys");
  details.append(summary, list, label);
  document.querySelector("footer .version")?.after(details);

  document.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    const isTyped = event.isComposing || target.matches("input:not([type=checkbox]), select");
    if (!box.checked || isTyped || event.ctrlKey || event.metaKey || event.altKey) return;
    const found = shortcuts.find(([key]) => key === event.key);
    if (!found) return;
    event.preventDefault();
    found[2]();
  });
}

/** A browser may refuse to keep anything: then it holds for this page. */
function remembered(): string | null {
  try {
    return localStorage.getItem(setting);
  } catch {
    return null;
  }
}

function remember(value: string): void {
  try {
    localStorage.setItem(setting, value);
  } catch {
    // as above
  }
}

/** Written by tools/page.ts from lib/page/browser/: change that, then run npm run page. */
export const assets = {
  script: {
    end: "js",
    type: "text/javascript",
    text: `// lib/core/clean.ts
var suspicious = /[\\u0000-\\u0008\\u000a-\\u001f\\u007f-\\u009f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]/, sequences = (
  // biome-ignore lint/suspicious/noControlCharactersInRegex: as above
  /(?:\\u001b\\[|\\u009b)[0-?]*[ -/]*[@-~]|(?:\\u001b[\\]PX^_]|[\\u009d\\u0090\\u0098\\u009e\\u009f])[^\\u0007\\u001b\\u0080-\\u009f]*(?:\\u0007|\\u001b\\\\|\\u009c)|\\u001b[ -/]*[0-~]?/g
);
var suspiciousEverywhere = new RegExp(suspicious.source, "g");
function withSigns(text) {
  return suspicious.test(text) ? text.replace(suspiciousEverywhere, sign) : text;
}
function sign(character) {
  let code = character.charCodeAt(0);
  return code < 32 ? \`^\${String.fromCharCode(code + 64)}\` : code === 127 ? "^?" : \`<\${code.toString(16)}>\`;
}

// lib/page/ansi.ts
function parseStyle(text) {
  let [fg = -1, bg = -1, flags = 0] = text.split(",").map(Number);
  return { fg, bg, flags };
}
var maxShown = 5e3;
function spansOf(line, style) {
  if (line.length > maxShown) {
    let rest = line.length - maxShown, cut = spansOf(line.slice(0, maxShown), style);
    return cut.spans.push([\` … \${rest} more characters are in the raw log\`, "x2"]), { spans: cut.spans, style: styleAfter(line.slice(maxShown), cut.style) };
  }
  let whole = line.replace(/\\r+$/, ""), end = whole.lastIndexOf("\\r") + 1, text = whole.slice(end), now = styleAfter(whole.slice(0, end), style), spans = [], add = (piece) => {
    if (piece === "") return;
    let classes = classesOf(now), last = spans.at(-1);
    last && last[1] === classes ? spans[spans.length - 1] = [last[0] + withSigns(piece), classes] : spans.push([withSigns(piece), classes]);
  }, at = 0;
  for (let match of text.matchAll(sequences))
    add(text.slice(at, match.index)), at = match.index + match[0].length, now = afterSequence(match[0], now);
  return add(text.slice(at)), { spans, style: now };
}
function styleAfter(text, style) {
  let now = style;
  for (let [sequence] of text.matchAll(sequences)) now = afterSequence(sequence, now);
  return now;
}
var colours = /^(?:\\u001b\\[|\\u009b)([\\d;:]*)m$/;
function afterSequence(sequence, style) {
  let found = colours.exec(sequence)?.[1];
  if (found === void 0) return style;
  let codes = found.split(";").flatMap((part) => {
    if (!part.includes(":")) return [Number(part)];
    let [kind2 = "0", way = "", ...more] = part.split(":"), values = way === "2" && more.length > 3 ? more.slice(1) : more;
    return [kind2, way, ...values].map(Number);
  }), { fg, bg, flags } = style;
  for (let at = 0; at < codes.length; at++) {
    let code = codes[at] ?? 0;
    if (code === 0) [fg, bg, flags] = [-1, -1, 0];
    else if (code === 38 || code === 48) {
      let [colour, length] = extended(codes, at);
      at += length, code === 38 ? fg = colour ?? fg : bg = colour ?? bg;
    } else code >= 30 && code <= 37 ? fg = code - 30 : code === 39 ? fg = -1 : code >= 40 && code <= 47 ? bg = code - 40 : code === 49 ? bg = -1 : code >= 90 && code <= 97 ? fg = code - 82 : code >= 100 && code <= 107 ? bg = code - 92 : code === 22 ? flags &= -4 : setsFlag[code] !== void 0 ? flags |= setsFlag[code] : clearsFlag[code] !== void 0 && (flags &= ~clearsFlag[code]);
  }
  return { fg, bg, flags };
}
var setsFlag = { 1: 1, 2: 2, 3: 4, 4: 8, 7: 16, 9: 32, 21: 8 }, clearsFlag = { 23: 4, 24: 8, 27: 16, 29: 32 };
function extended(codes, at) {
  let byte = (offset) => Math.min(255, Math.max(0, codes[at + offset] || 0));
  return codes[at + 1] === 5 ? [byte(2), 2] : codes[at + 1] === 2 ? [nearest(byte(2), byte(3), byte(4)), 4] : [void 0, 1];
}
function nearest(red, green, blue) {
  let level = (value) => value < 48 ? 0 : value < 115 ? 1 : Math.floor((value - 35) / 40);
  return Math.max(red, green, blue) - Math.min(red, green, blue) < 10 && red > 3 && red < 243 ? 232 + Math.round((red - 8) / 10.3) : 16 + 36 * level(red) + 6 * level(green) + level(blue);
}
function classesOf({ fg, bg, flags }) {
  let classes = [];
  fg >= 0 && classes.push(\`f\${fg}\`), bg >= 0 && classes.push(\`b\${bg}\`);
  for (let flag = 1; flag <= 32; flag *= 2) flags & flag && classes.push(\`x\${flag}\`);
  return classes.join(" ");
}

// lib/page/browser/log-lines.ts
var size = 500, maxBlocks = 40, Lines = class {
  #address;
  #onLoad;
  #blocks = /* @__PURE__ */ new Map();
  #loading = /* @__PURE__ */ new Set();
  total = 0;
  constructor(address, onLoad) {
    this.#address = address, this.#onLoad = onLoad;
  }
  /** Ask how many lines there are; returns where a stream of what comes after them begins. */
  async open() {
    let answer = await this.fetch(Math.max(0, this.total), 0);
    return this.total = answer.total, answer.at;
  }
  async fetch(from, count) {
    let answer = await fetch(\`\${this.#address}/lines?from=\${from}&count=\${count}\`);
    if (!answer.ok) throw new Error(\`the log cannot be had: \${answer.status}\`);
    return await answer.json();
  }
  /** The spans of a line; undefined when they are being fetched. */
  get(line) {
    let number = Math.floor(line / size), block = this.#blocks.get(number), offset = line - number * size;
    if (!block || offset >= block.lines.length) {
      this.load(number);
      return;
    }
    for (; block.spans.length <= offset; ) {
      let { spans, style } = spansOf(block.lines[block.spans.length] ?? "", block.style);
      block.spans.push(spans), block.style = style;
    }
    return block.spans[offset];
  }
  async load(number) {
    let known = this.#blocks.get(number), from = number * size + (known?.lines.length ?? 0);
    if (!(this.#loading.has(number) || from >= this.total)) {
      this.#loading.add(number);
      try {
        let { lines, style } = await this.fetch(from, (number + 1) * size - from);
        if (lines.length === 0) return;
        known ? from === number * size + known.lines.length && known.lines.push(...lines) : this.keep(number, { lines, spans: [], style: parseStyle(style) }), this.#onLoad();
      } catch {
        setTimeout(this.#onLoad, 2e3);
      } finally {
        this.#loading.delete(number);
      }
    }
  }
  keep(number, block) {
    this.#blocks.delete(number), this.#blocks.set(number, block);
    for (let oldest of this.#blocks.keys()) {
      if (this.#blocks.size <= maxBlocks) break;
      this.#blocks.delete(oldest);
    }
  }
  /** Lines that were written now. */
  add(lines) {
    for (let line of lines) {
      let number = Math.floor(this.total / size), offset = this.total - number * size, block = this.#blocks.get(number);
      if (block?.lines.length === offset) block.lines.push(line);
      else if (offset === 0) {
        let before = this.#blocks.get(number - 1);
        (number === 0 || before?.lines.length === size) && (before && this.get(this.total - 1), this.keep(number, {
          lines: [line],
          spans: [],
          style: before?.style ?? parseStyle("-1,-1,0")
        }));
      } else block && this.#blocks.delete(number);
      this.total += 1;
    }
  }
  /** The log began anew. */
  clear() {
    this.#blocks.clear(), this.total = 0;
  }
};

// lib/page/browser/log-rows.ts
var Rows = class {
  #folds = [];
  #closed = /* @__PURE__ */ new Set();
  #segments = [];
  #total = 0;
  count = 0;
  /** How many lines there are. */
  set total(total) {
    this.#total = total, this.build();
  }
  get total() {
    return this.#total;
  }
  get folds() {
    return this.#folds;
  }
  /** @param isFirst fold what went well: only at the start, as nothing may move under a reader's eyes later. */
  setFolds(folds, isFirst) {
    if (this.#folds = folds, isFirst && folds.some(({ result }) => result === "failed" || result === "timeout"))
      for (let fold of folds) fold.result === "ok" && this.#closed.add(keyOf(fold));
    this.build();
  }
  toggle(fold) {
    let key = keyOf(fold);
    this.#closed.delete(key) || this.#closed.add(key), this.build();
  }
  foldAll(isClosed) {
    this.#closed = new Set(isClosed ? this.#folds.map(keyOf) : []), this.build();
  }
  build() {
    let segments = [], row = 0, line = 0, lines = (to) => {
      to > line && (segments.push({ row, rows: to - line, line }), row += to - line), line = Math.max(line, to);
    };
    for (let fold of this.#folds) {
      let from = Math.min(fold.from, this.#total), to = Math.min(fold.to ?? this.#total, this.#total);
      from < line || to < from || (lines(from), segments.push({ row, rows: 1, fold }), row += 1, this.#closed.has(keyOf(fold)) ? line = to : lines(to));
    }
    lines(this.#total), this.#segments = segments, this.count = row;
  }
  at(row) {
    let segment = this.#segments.findLast((each) => each.row <= row);
    if (!(!segment || row >= segment.row + segment.rows))
      return segment.fold ? { fold: segment.fold, isClosed: this.#closed.has(keyOf(segment.fold)) } : { line: (segment.line ?? 0) + row - segment.row };
  }
  /** The row of a line; a stage that hides it is opened. */
  rowOf(line) {
    let hidden = this.#folds.find(
      (fold) => this.#closed.has(keyOf(fold)) && fold.from <= line && line < (fold.to ?? this.#total)
    );
    hidden && this.toggle(hidden);
    let segment = this.#segments.find(
      (each) => each.line !== void 0 && each.line <= line && line < each.line + each.rows
    );
    return segment ? segment.row + line - (segment.line ?? 0) : Math.max(0, this.count - 1);
  }
};
function keyOf({ name, from }) {
  return \`\${from} \${name}\`;
}
function lineElements(spans) {
  return spans.map(([text, classes]) => {
    if (classes === "") return document.createTextNode(text);
    let element = document.createElement("span");
    return element.className = classes, element.textContent = text, element;
  });
}

// lib/page/browser/shortcuts.ts
var setting = "shortcuts";
function startShortcuts(shortcuts) {
  let details = document.createElement("details");
  details.className = "shortcuts";
  let summary = document.createElement("summary");
  summary.textContent = "Keyboard shortcuts";
  let list = document.createElement("dl");
  for (let [key, what] of shortcuts) {
    let [term, meaning] = [document.createElement("dt"), document.createElement("dd")], sign2 = document.createElement("kbd");
    sign2.textContent = key, term.append(sign2), meaning.textContent = what, list.append(term, meaning);
  }
  let box = document.createElement("input");
  box.type = "checkbox", box.id = setting, box.checked = remembered() !== "off", box.addEventListener("change", () => remember(box.checked ? "on" : "off"));
  let label = document.createElement("label");
  label.append(box, " Use these keys"), details.append(summary, list, label), document.querySelector("footer .version")?.after(details), document.addEventListener("keydown", (event) => {
    let target = event.target, isTyped = event.isComposing || target.matches("input:not([type=checkbox]), select");
    if (!box.checked || isTyped || event.ctrlKey || event.metaKey || event.altKey) return;
    let found = shortcuts.find(([key]) => key === event.key);
    found && (event.preventDefault(), found[2]());
  });
}
function remembered() {
  try {
    return localStorage.getItem(setting);
  } catch {
    return null;
  }
}
function remember(value) {
  try {
    localStorage.setItem(setting, value);
  } catch {
  }
}

// lib/page/browser/log-tools.ts
function startTools(section, { address, lines, rows, view }) {
  let bar = section.querySelector("[data-tools]");
  if (!bar) return;
  let found = { lines: [], count: 0, at: -1 }, search = document.createElement("input");
  search.type = "search", search.placeholder = "Search the log", search.ariaLabel = "Search the log";
  let status = document.createElement("output"), button = (text, hint, act) => {
    let element = document.createElement("button");
    return element.type = "button", element.className = "quiet", element.textContent = text, element.title = hint, element.addEventListener("click", act), element;
  }, step = (by) => {
    if (found.lines.length === 0) return;
    found.at = (found.at + by + found.lines.length) % found.lines.length;
    let line = found.lines[found.at] ?? 0;
    view.marked = [line, line], status.textContent = \`\${found.at + 1} of \${found.count}\`, view.show(line);
  }, asking = new AbortController(), ask = async (what) => {
    asking.abort(), asking = new AbortController();
    let answer = await fetch(\`\${address}/\${what}\`, { signal: asking.signal });
    if (!answer.ok) throw new Error(\`the server answered \${answer.status}\`);
    return await answer.json();
  }, sayWhy = (error2) => {
    error2 instanceof DOMException || (status.textContent = String(error2));
  }, firstError = async () => {
    let { line } = await ask("error");
    if (line < 0) {
      status.textContent = "no error found";
      return;
    }
    mark(line, line), view.show(line);
  }, mark = (from, to) => {
    view.marked = [from, to], history.replaceState(null, "", from === to ? \`#L\${from + 1}\` : \`#L\${from + 1}-L\${to + 1}\`);
  }, next = button("↓", "Next (n)", () => step(1));
  next.ariaLabel = "Next match";
  let previous = button("↑", "Previous (p)", () => step(-1));
  previous.ariaLabel = "Previous match";
  let error = button("First error", "Jump to the first error (e)", () => {
    firstError().catch(sayWhy);
  }), areClosed = !1, fold = button("Fold all", "Fold or unfold all stages", () => {
    areClosed = !areClosed, fold.textContent = areClosed ? "Unfold all" : "Fold all", rows.foldAll(areClosed), view.draw();
  }), follow = button(
    "Follow",
    "Keep the end in sight (f)",
    () => view.setFollowing(!view.isFollowing)
  ), showFollow = () => follow.ariaPressed = String(view.isFollowing);
  view.onFollow = showFollow, showFollow(), bar.replaceChildren(search, previous, next, status, error, fold, follow), bar.hidden = !1;
  let find = async () => {
    let text = search.value, answer = await ask(
      \`search?q=\${encodeURIComponent(text)}\`
    );
    Object.assign(found, answer, { at: -1 }), view.hits = new Set(answer.lines), status.textContent = text === "" ? "" : answer.count === 0 ? "none" : \`\${answer.count}\`, answer.count > 0 ? step(1) : view.draw();
  }, timer;
  search.addEventListener("input", () => {
    clearTimeout(timer), timer = setTimeout(() => {
      find().catch(sayWhy);
    }, 300);
  }), search.addEventListener("keydown", (event) => {
    event.key === "Enter" && (event.preventDefault(), found.lines.length > 0 ? step(event.shiftKey ? -1 : 1) : find().catch(sayWhy));
  }), startShortcuts([
    ["/", "search the log", () => search.focus()],
    ["n", "next match", () => step(1)],
    ["p", "previous match", () => step(-1)],
    ["e", "first error", () => error.click()],
    ["f", "follow the end", () => follow.click()]
  ]), section.addEventListener("click", (event) => {
    let number = event.target.closest("a.n")?.dataset.n;
    if (number === void 0) return;
    event.preventDefault();
    let line = Number(number) - 1, start = event.shiftKey && view.marked ? view.marked[0] : line;
    mark(Math.min(start, line), Math.max(start, line)), view.draw();
  }), document.addEventListener("click", (event) => {
    let at = event.target.closest("#stages a[data-at]")?.dataset.at;
    at !== void 0 && (event.preventDefault(), fetch(\`\${address}/line-at?at=\${at}\`).then(async (answer) => await answer.json()).then(({ line }) => view.show(Math.min(line, Math.max(0, lines.total - 1)))));
  });
  let fromHash = () => {
    let [, from, to] = /^#L(\\d+)(?:-L(\\d+))?$/.exec(location.hash) ?? [];
    if (from === void 0) return;
    let first = Math.max(0, Number(from) - 1);
    view.marked = [first, Math.max(first, Number(to ?? from) - 1)], view.show(Math.min(first, Math.max(0, lines.total - 1)));
  };
  addEventListener("hashchange", fromHash), fromHash();
}

// lib/page/times.ts
function shortDuration(seconds) {
  if (seconds < 10) return \`\${seconds.toFixed(1)} s\`;
  let whole = Math.round(seconds);
  if (whole < 60) return \`\${whole} s\`;
  let two = (value) => String(value).padStart(2, "0");
  return whole < 3600 ? \`\${Math.floor(whole / 60)} m \${two(whole % 60)} s\` : \`\${Math.floor(whole / 3600)} h \${two(Math.floor(whole % 3600 / 60))} m\`;
}
function shortAge(time, now) {
  let seconds = Math.max(0, Math.floor((now - time) / 1e3));
  return seconds < 60 ? \`\${seconds} s ago\` : seconds < 3600 ? \`\${Math.floor(seconds / 60)} min ago\` : seconds < 2 * 86400 ? \`\${Math.floor(seconds / 3600)} h ago\` : \`\${Math.floor(seconds / 86400)} days ago\`;
}
function counted(count, what) {
  return \`\${count} \${what}\${count === 1 ? "" : "s"}\`;
}

// lib/page/browser/log-view.ts
var rowHeight = 20, maxHeight = 8e6, LogView = class {
  #lines;
  #rows;
  #box;
  #spacer = document.createElement("div");
  #shown = document.createElement("div");
  #first = 0;
  #isDrawing = !1;
  /** Where we have put the scroll bar ourselves. */
  #set = -1;
  /** Whether the end is kept in sight. */
  isFollowing;
  onFollow = () => {
  };
  /** Lines that are marked, from 0: the link's, the search's. */
  marked;
  hits = /* @__PURE__ */ new Set();
  constructor(box, parts) {
    this.#box = box, this.#lines = parts.lines, this.#rows = parts.rows, this.isFollowing = parts.isFollowing, this.#spacer.className = "spacer", this.#shown.className = "shown", box.replaceChildren(this.#spacer, this.#shown), box.addEventListener("scroll", () => this.scrolled(), { passive: !0 }), box.addEventListener("wheel", (event) => this.wheel(event), { passive: !1 }), box.addEventListener("keydown", (event) => this.key(event)), new ResizeObserver(() => this.draw()).observe(box), this.draw();
  }
  get visible() {
    return Math.max(1, Math.floor(this.#box.clientHeight / rowHeight));
  }
  get isScaled() {
    return this.#rows.count * rowHeight > maxHeight;
  }
  get last() {
    return Math.max(0, this.#rows.count - this.visible);
  }
  /** Draw before the next frame. */
  draw() {
    this.#isDrawing || (this.#isDrawing = !0, requestAnimationFrame(() => {
      this.#isDrawing = !1, this.drawNow();
    }));
  }
  drawNow() {
    let height = Math.min(maxHeight, this.#rows.count * rowHeight);
    this.#spacer.dataset.height !== String(height) && (this.#spacer.dataset.height = String(height), this.#spacer.style.height = \`\${height}px\`), this.#box.classList.toggle("empty", this.#rows.count === 0), this.isFollowing && (this.#first = this.last), this.#first = Math.max(0, Math.min(this.#first, this.last)), this.place();
    let elements = [];
    for (let row = this.#first; row <= this.#first + this.visible + 1; row++) {
      let element = this.element(row);
      element && elements.push(element);
    }
    let focused = this.#shown.contains(document.activeElement) ? document.activeElement?.getAttribute("data-key") : void 0;
    this.#shown.replaceChildren(...elements), focused && this.#shown.querySelector(\`[data-key="\${CSS.escape(focused)}"]\`)?.focus({
      preventScroll: !0
    });
  }
  /** Put the scroll bar where the first row is, and the rows where they can be seen. */
  place() {
    let room = Math.max(0, this.#spacer.offsetHeight - this.#box.clientHeight), wanted = this.isScaled ? Math.round(this.#first / Math.max(1, this.last) * room) : this.isFollowing ? room : void 0;
    wanted !== void 0 && Math.abs(this.#box.scrollTop - wanted) >= 1 && (this.#box.scrollTop = wanted, this.#set = this.#box.scrollTop);
    let top = this.isScaled ? this.#box.scrollTop : this.#first * rowHeight;
    this.#shown.style.transform = \`translateY(\${top}px)\`;
  }
  scrolled() {
    let at = this.#box.scrollTop;
    if (Math.abs(at - this.#set) < 1) return this.draw();
    this.#set = -1;
    let room = Math.max(1, this.#box.scrollHeight - this.#box.clientHeight);
    this.#first = this.isScaled ? Math.round(at / room * this.last) : Math.floor(at / rowHeight), this.follow(at >= room - 2), this.draw();
  }
  wheel(event) {
    if (event.deltaY < 0 && this.follow(!1), !this.isScaled || event.ctrlKey || event.deltaY === 0) return;
    event.preventDefault();
    let rows = event.deltaMode === 1 ? event.deltaY : event.deltaY / rowHeight;
    this.move(Math.sign(rows) * Math.max(1, Math.round(Math.abs(rows))));
  }
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.key === " " && event.target !== this.#box) return;
    let page = Math.max(1, this.visible - 2), rows = {
      ArrowUp: -1,
      ArrowDown: 1,
      PageUp: -page,
      PageDown: page,
      " ": event.shiftKey ? -page : page,
      Home: -Number.MAX_SAFE_INTEGER,
      End: Number.MAX_SAFE_INTEGER
    }[event.key];
    rows !== void 0 && (event.preventDefault(), this.move(rows));
  }
  move(rows) {
    let first = Math.max(0, Math.min(this.#first + rows, this.last));
    this.follow(first === this.last && rows > 0), this.goTo(first);
  }
  goTo(first) {
    this.#first = Math.max(0, Math.min(first, this.last)), this.isScaled || (this.#box.scrollTop = this.#first * rowHeight, this.#set = this.#box.scrollTop), this.draw();
  }
  follow(isFollowing) {
    this.isFollowing !== isFollowing && (this.isFollowing = isFollowing, this.onFollow());
  }
  /** Keep the end in sight, or no longer. */
  setFollowing(isFollowing) {
    this.follow(isFollowing), this.draw();
  }
  /** Show a line (from 0), with some before it. */
  show(line) {
    this.follow(!1);
    let row = this.#rows.rowOf(line);
    this.draw(), this.goTo(row - Math.floor(this.visible / 3));
  }
  element(number) {
    let row = this.#rows.at(number);
    if (!row) return;
    if ("fold" in row)
      return foldElement(row.fold, row.isClosed, () => {
        this.follow(!1), this.#rows.toggle(row.fold), this.draw();
      });
    let element = document.createElement("div");
    element.className = "row";
    let { line } = row;
    this.marked && line >= this.marked[0] && line <= this.marked[1] && element.classList.add("marked"), this.hits.has(line) && element.classList.add("hit");
    let link = document.createElement("a");
    link.className = "n", link.href = \`#L\${line + 1}\`, link.dataset.n = String(line + 1), link.dataset.key = \`L\${line + 1}\`, link.ariaLabel = \`line \${line + 1}\`, link.tabIndex = -1;
    let text = document.createElement("span");
    return text.className = "t", text.append(...lineElements(this.#lines.get(line) ?? [["…", "x2"]])), element.append(link, text), element;
  }
};
function foldElement(fold, isClosed, toggle) {
  let element = document.createElement("button");
  element.type = "button", element.className = \`fold \${fold.result ?? "running"}\`, element.ariaExpanded = String(!isClosed), element.dataset.key = \`fold \${fold.from}\`;
  let count = fold.to === void 0 ? "" : counted(fold.to - fold.from, "line"), seconds = fold.seconds === void 0 ? "" : shortDuration(fold.seconds);
  for (let [name, text] of [
    ["name", fold.name],
    ["result", fold.result ?? "running"],
    ["soft", [seconds, count].filter(Boolean).join(" · ")]
  ]) {
    let part = document.createElement("span");
    part.className = name, part.textContent = text, element.append(part);
  }
  return element.addEventListener("click", toggle), element;
}

// lib/page/browser/live.ts
function say(text) {
  let where = document.querySelector("#link-state");
  where && where.textContent !== text && (where.textContent = text);
}
function openStream(address, on) {
  let stream, timer, isOver = !1, isLost = !1, pause = 500, close = () => {
    clearTimeout(timer), stream?.close(), stream = void 0;
  }, open = () => {
    if (close(), isOver || document.hidden) return;
    let own = new EventSource(address());
    stream = own, own.onopen = () => {
      pause = 500, isLost && say(""), isLost = !1;
    };
    for (let [name, handle] of Object.entries(on))
      own.addEventListener(name, (event) => {
        stream === own && handle(event.data, event.lastEventId);
      });
    own.onerror = () => {
      stream === own && (isLost = !0, say("Connection lost; trying again"), own.readyState === EventSource.CLOSED && reloadIfSignedOut(), close(), timer = setTimeout(open, pause + Math.random() * 300), pause = Math.min(pause * 2, 1e4));
    };
  }, look = () => document.hidden ? close() : stream === void 0 && open();
  return document.addEventListener("visibilitychange", look), addEventListener("pagehide", close), addEventListener("pageshow", look), open(), () => {
    isOver = !0, document.removeEventListener("visibilitychange", look), removeEventListener("pageshow", look), close();
  };
}
async function reloadIfSignedOut() {
  (await fetch(location.href, { method: "HEAD" }).catch(() => {
  }))?.status === 401 && location.reload();
}
function swap(old, next) {
  if (!old || !next || timeless(old).isEqualNode(timeless(next))) return !1;
  let focused = old.contains(document.activeElement) ? document.activeElement?.closest("a")?.getAttribute("href") : void 0;
  old.replaceWith(next);
  for (let link of next.querySelectorAll("a"))
    if (focused && link.getAttribute("href") === focused) {
      link.focus({ preventScroll: !0 });
      break;
    }
  return !0;
}
function timeless(part) {
  let copy = part.cloneNode(!0);
  for (let time of copy.querySelectorAll("time")) time.textContent = "";
  return copy;
}

// lib/page/browser/log.ts
function startLog(section) {
  let address = \`/runs/\${section.dataset.run}\`, isLive = section.dataset.live === "yes", rows = new Rows(), lines = new Lines(address, () => view?.draw()), view, readFolds = async (isFirst) => {
    let answer = await fetch(\`\${address}/folds\`);
    answer.ok && (rows.setFolds((await answer.json()).folds, isFirst), view?.draw());
  };
  (async () => {
    let at = await lines.open();
    rows.total = lines.total, await readFolds(!0);
    let plain = section.querySelector("[data-plain]");
    if (!plain) return;
    let box = document.createElement("div");
    if (box.className = "lines window", box.tabIndex = 0, box.role = "region", box.ariaLabel = "Log lines", plain.replaceWith(box), view = new LogView(box, { lines, rows, isFollowing: isLive && location.hash === "" }), startTools(section, { address, lines, rows, view }), !isLive) return;
    let willRead = !1, close = openStream(() => \`\${address}/log?follow=1&at=\${encodeURIComponent(at)}\`, {
      message: (data, id) => {
        at = id, lines.add(data.split(\`
\`)), rows.total = lines.total, view?.draw();
      },
      restart: (_, id) => {
        at = id, lines.clear(), rows.total = 0, view?.draw();
      },
      about: (data) => {
        !swapParts(new DOMParser().parseFromString(data, "text/html")) || willRead || (willRead = !0, setTimeout(() => {
          willRead = !1, readFolds(!1);
        }, 500));
      },
      end: (state) => {
        close(), say(\`The run has ended: \${state}\`), setTimeout(() => {
          finish(readFolds);
        }, Math.random() * 1e3);
      }
    });
  })().catch((error) => say(String(error instanceof Error ? error.message : error)));
}
async function finish(readFolds) {
  let answer = await fetch(location.pathname, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  let fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  swapParts(fresh), swap(document.querySelector(".actions"), fresh.querySelector(".actions")), await readFolds(!1);
}
function swapParts(fresh) {
  return document.title = fresh.title, ["summary", "stagebar", "stages"].filter((id) => swap(document.getElementById(id), fresh.getElementById(id))).includes("stages");
}

// lib/page/browser/overview.ts
function filterRepos() {
  let box = document.querySelector("input[data-filter]");
  box && (box.addEventListener("input", () => {
    let count = applyFilter(box);
    say(\`\${counted(count, "repo")} \${count === 1 ? "fits" : "fit"} the filter\`);
  }), box.form?.addEventListener("submit", (event) => event.preventDefault()), startShortcuts([["/", "filter the repos", () => box.focus()]]));
}
function applyFilter(box) {
  let text = box.value.trim().toLowerCase();
  for (let row of document.querySelectorAll("tr[data-words]"))
    row.hidden = text !== "" && row.dataset.words?.includes(text) !== !0;
  let { length } = document.querySelectorAll("tr[data-words]:not([hidden])"), none = document.querySelector("[data-none]");
  return none && (none.hidden = length > 0), length;
}
function followChanges() {
  let isLoading = !1, isWanted = !1, load = async () => {
    if (isWanted = !0, !isLoading) {
      for (isLoading = !0; isWanted; )
        isWanted = !1, await refresh().catch(() => {
        }), await new Promise((resolve) => setTimeout(resolve, 1e3));
      isLoading = !1;
    }
  }, told;
  openStream(() => "/live", {
    hello: (data) => {
      told !== void 0 && told !== data && load(), told = data;
    },
    change: (data) => {
      told = data, load();
    }
  });
}
async function refresh() {
  let url = new URL(location.href);
  url.searchParams.delete("q");
  let answer = await fetch(url, { headers: { accept: "text/html" }, cache: "no-store" });
  if (!answer.ok) return location.reload();
  let fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (let selector of ["#problems", ".head .sum", "#live"])
    swap(document.querySelector(selector), fresh.querySelector(selector));
  let box = document.querySelector("input[data-filter]");
  box && applyFilter(box);
}

// lib/page/browser/main.ts
var skew = Date.now() - Number(document.documentElement.dataset.now ?? Date.now());
keepTimes();
filterRepos();
var kind = document.body.dataset.kind;
(kind === "overview" || kind === "repo") && followChanges();
var log = document.querySelector("#log");
kind === "run" && log && startLog(log);
function keepTimes() {
  let calm = matchMedia("(prefers-reduced-motion: reduce)").matches, tick = () => {
    if (document.hidden) return;
    let now = Date.now() - skew;
    for (let each of document.querySelectorAll("time[data-clock]")) {
      let seconds = Math.max(0, now - Date.parse(each.dateTime)) / 1e3;
      set(each, shortDuration(calm ? Math.floor(seconds / 10) * 10 : Math.floor(seconds)));
    }
    for (let each of document.querySelectorAll("time[data-ago]"))
      set(each, shortAge(Date.parse(each.dateTime), now));
  };
  setInterval(tick, calm ? 1e4 : 1e3), document.addEventListener("visibilitychange", tick);
}
function set(element, text) {
  element.textContent !== text && (element.textContent = text);
}
`,
  },
  style: {
    end: "css",
    type: "text/css",
    text: `:root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--text:#1d2126;--soft:#5b6470;--line:#e3e5e8;--link:#1f5f9e;--accent:#2f6fb3;--on-accent:#fff;--good:#1a7a3d;--bad:#b3261e;--busy:#8a5a00;--idle:#5b6470;--good-bg:#e3f3e8;--bad-bg:#fbe7e5;--busy-bg:#fdf1d8;--idle-bg:#eceef0;--bar-good:#58ad76;--bar-bad:#d8564c;--bar-idle:#b3bac2;--bar-busy:#dba32c;--mono:ui-monospace,"SF Mono","Cascadia Mono","DejaVu Sans Mono",Menlo,Consolas,monospace}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1a1e22;--text:#dde2e7;--soft:#98a2ad;--line:#2b3138;--link:#7db6ee;--accent:#7db6ee;--on-accent:#0d1a27;--good:#74cf92;--bad:#f38d84;--busy:#e8bd62;--idle:#98a2ad;--good-bg:#173023;--bad-bg:#3a1c1a;--busy-bg:#362a10;--idle-bg:#262b31;--bar-good:#3f9a60;--bar-bad:#d4574d;--bar-idle:#59636e;--bar-busy:#b98a27}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;min-height:100vh;display:flex;flex-direction:column}
a{color:var(--link);text-decoration:none}
a:hover,.sum a,.now .title a,.why a{text-decoration:underline}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:3px}
main:focus{outline:none}
main{flex:1;width:100%;max-width:1400px;margin:0 auto;padding:20px 24px 32px}
footer{display:flex;flex-wrap:wrap;gap:4px 24px;max-width:1400px;width:100%;margin:0 auto;padding:10px 24px 18px;color:var(--soft);font-size:13px}
.shortcuts[open]{order:9;flex-basis:100%}
.shortcuts summary{cursor:pointer}
.shortcuts dl{display:flex;flex-wrap:wrap;gap:4px 8px;margin:8px 0}
.shortcuts dd{margin:0 14px 0 0}
.shortcuts label{display:inline-flex;align-items:center;gap:8px}
.shortcuts input{min-height:0}
kbd{font:12px var(--mono);border:1px solid var(--line);border-radius:4px;padding:1px 6px;background:var(--card)}
.top{display:flex;justify-content:space-between;align-items:center;gap:16px;padding:9px 24px;background:var(--card);border-bottom:1px solid var(--line)}
.top nav{display:flex;align-items:center;gap:18px}
.top nav a{color:var(--soft)}
.top nav a[aria-current]{color:var(--text);font-weight:600}
.top .brand{display:flex;align-items:center;gap:8px;color:var(--text);font-weight:650;margin-right:8px}
.mark{fill:var(--accent)}
.who{display:flex;align-items:center;gap:12px;color:var(--soft)}
.who span{max-width:16em;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.skip,.away{position:absolute;width:1px;height:1px;margin:-1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.skip:focus{position:static;width:auto;height:auto;margin:0;clip-path:none;padding:8px 24px}
h1{font-size:21px;line-height:1.3;margin:0;font-weight:650;overflow-wrap:anywhere}
h2{font-size:16px;margin:0;font-weight:600}
.head{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 16px;margin-bottom:14px}
.head h1{display:flex;align-items:baseline;gap:10px}
.sum,.soft{color:var(--soft)}
.sum{margin:0}
.head .filter{margin-left:auto}
.filter{display:flex;flex-wrap:wrap;align-items:center;gap:12px;margin:0}
main>.filter{margin:0 0 14px}
input,select,button,.button{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:6px;padding:5px 10px;min-height:34px}
input[type=search]{width:23em;max-width:100%}
.filter label{min-width:0;max-width:100%}
select{max-width:min(22em,75vw);text-overflow:ellipsis}
::placeholder{color:var(--soft);opacity:1}
button,.button{cursor:pointer;display:inline-flex;align-items:center;line-height:1.4}
button:hover,.button:hover{border-color:var(--soft);text-decoration:none}
button.main{background:var(--accent);border-color:var(--accent);color:var(--on-accent);font-weight:600}
button.danger{background:var(--bad-bg);border-color:var(--bad);color:var(--bad);font-weight:600}
button.quiet{background:none;color:var(--soft);padding:3px 9px;min-height:30px}
button[aria-pressed=true]{color:var(--text);border-color:var(--accent)}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:7px 10px 7px 0;border-bottom:1px solid var(--line);vertical-align:middle;font-weight:400}
thead th{color:var(--soft);font-size:12.5px;padding-top:0;white-space:nowrap}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.num,th.num{padding-right:22px}
time{font-variant-numeric:tabular-nums}
.when,.by{color:var(--soft);white-space:nowrap}
.by{max-width:9em;overflow:hidden;text-overflow:ellipsis}
.repos th[scope=row]{white-space:nowrap;max-width:20em;overflow:hidden;text-overflow:ellipsis}
.repos th[scope=row] a{display:inline-flex;max-width:100%;color:var(--text);font-weight:600}
.repos .owner,.repos .name{overflow:hidden;text-overflow:ellipsis}
.repos .owner{flex:0 100 auto;min-width:2em}
.owner{color:var(--soft);font-weight:400}
.what{width:34%;max-width:0;padding-right:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.what+.by,.repos th:nth-child(4),.runs th:nth-child(3){padding-left:12px}
.ref,.title,.name,.owner,h1 span,.t{unicode-bidi:isolate}
.ref,.sha,.id{font-family:var(--mono);font-size:.88em}
.ref{background:var(--idle-bg);border-radius:4px;padding:1px 6px;overflow-wrap:anywhere;-webkit-box-decoration-break:clone;box-decoration-break:clone}
.sha,.id{color:var(--soft)}
.runs th{white-space:nowrap}
.runs th .pill{min-width:8em;text-align:center}
.runs th a{display:inline-flex;gap:8px;align-items:baseline}
.runs .why,.stages .why{color:var(--soft);max-width:24em;overflow-wrap:anywhere}
.pill{display:inline-block;border-radius:20px;padding:1px 9px;font-size:12.5px;font-weight:600;white-space:nowrap;color:var(--idle);background:var(--idle-bg)}
.pill.succeeded,.pill.ok{color:var(--good);background:var(--good-bg)}
.pill.failed,.pill.timeout,.pill.differs,.pill.unreachable{color:var(--bad);background:var(--bad-bg)}
.pill.running,.pill.starting{color:var(--busy);background:var(--busy-bg)}
a:hover>.pill{text-decoration:underline}
.bar{width:210px;padding-right:0}
.bars{display:block}
.base{stroke:var(--line);fill:none}
path.succeeded,circle.succeeded,rect.ok{fill:var(--bar-good)}
path.failed,circle.failed,rect.failed,rect.timeout{fill:var(--bar-bad)}
path.cancelled,circle.cancelled,rect.skipped,rect.cancelled{fill:var(--bar-idle)}
rect.running{fill:var(--bar-busy)}
.now{margin-bottom:18px;border:1px solid var(--line);border-radius:8px;background:var(--card)}
.now ul,.problems ul{list-style:none;margin:0;padding:0}
.now li{display:flex;align-items:center;gap:10px;padding:7px 12px;border-bottom:1px solid var(--line)}
.now li:last-child{border:0}
.now .pill{min-width:6.2em;text-align:center}
.now .title{flex:1;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;color:var(--soft)}
.problems{margin-bottom:16px;padding:8px 12px;border-radius:8px;background:var(--bad-bg);color:var(--bad)}
.problems li{overflow-wrap:anywhere}
.empty{color:var(--soft)}
.plot{margin:0 0 18px;padding:10px 12px 8px;border:1px solid var(--line);border-radius:8px;background:var(--card)}
.plot svg{display:block;width:100%;height:auto;overflow:visible}
.plot text{fill:var(--soft);font-size:11px;font-family:inherit}
.plot .grid{stroke:var(--line)}
.plot polyline{fill:none;stroke:var(--accent);stroke-width:1.5;stroke-linejoin:round}
.plot text.share{fill:var(--link)}
.plot circle{stroke:var(--card);stroke-width:1.5}
.plot a:hover circle,.plot a:focus-visible circle{stroke:var(--text);stroke-width:2}
figcaption{color:var(--soft);font-size:13px}
.pager{display:flex;gap:16px;margin:14px 0 26px}
section>h2+.sum{margin:2px 0 8px}
.more{margin-top:28px}
.release{margin-bottom:28px}
.facts{display:flex;flex-wrap:wrap;gap:6px 26px;margin:0 0 12px}
.facts dt{color:var(--soft);font-size:12.5px}
.facts dd{margin:0;overflow-wrap:anywhere}
.facts .ref{background:none;padding:0}
.reason{margin:0 0 12px;padding:7px 12px;border-radius:6px;background:var(--idle-bg);overflow-wrap:anywhere}
.reason.failed{background:var(--bad-bg);color:var(--bad)}
.bad{color:var(--bad)}
.actions{margin:0 0 14px}
.stagebar{display:block;width:100%;height:14px;margin-bottom:6px;border-radius:3px}
.stages{width:auto;min-width:min(100%,28em);margin-bottom:16px}
.stages th,.stages td{padding:3px 18px 3px 0;border:0}
.stages th{font-weight:500}
.log{border-radius:8px;overflow:hidden;border:1px solid var(--line)}
.logbar{display:flex;flex-wrap:wrap;align-items:center;gap:6px 14px;min-height:51px;padding:8px 12px;background:var(--card);border-bottom:1px solid var(--line)}
.logbar .raw{margin-left:auto}
.tools{display:flex;flex-wrap:wrap;align-items:center;gap:6px;flex:1}
.tools[hidden]{display:none}
.tools input{min-height:30px;width:15em}
.tools output{color:var(--soft);font-size:13px;min-width:4.5em}
.log .pager{margin:0;padding:14px 12px 26px;background:#0f1317}
.log .pager a{color:#7db6ee}
.lines{margin:0;background:#0f1317;color:#d5dbe1;font:13px/20px var(--mono);overflow:auto;tab-size:8}
pre.lines{padding:8px 0;max-height:max(70vh,200px);white-space:pre}
.lines .empty{padding:0 14px;color:#98a2ad}
.window{position:relative;height:70vh;min-height:200px;overscroll-behavior:contain}
.window:focus-visible,pre.lines:focus-visible{outline-offset:-2px}
.spacer{width:1px}
.shown{position:absolute;top:0;left:0;min-width:100%;width:max-content}
.window.empty{height:60px;min-height:60px}
.empty .shown::before{content:"Nothing was printed.";padding:0 14px;color:#98a2ad}
[data-live=yes] .empty .shown::before{content:"Nothing was printed yet."}
.row{height:20px;white-space:pre;padding-right:16px}
.n{display:inline-block;width:76px;padding-right:14px;text-align:right;color:#87919c;user-select:none}
.n::before{content:attr(data-n)}
.n:hover{color:#d5dbe1;text-decoration:none}
.row.hit{background:#2b2713}
.row.marked,.n:target{background:#3a3312}
.fold{display:flex;gap:12px;align-items:center;height:20px;min-height:0;width:100%;padding:0 14px 0 20px;border:0;border-radius:0;background:#1a2027;color:#d5dbe1;font:600 13px/20px var(--mono);text-align:left;position:sticky;left:0}
.fold::before{content:"▾";width:12px;color:#98a2ad}
.fold[aria-expanded=false]::before{content:"▸"}
.fold .result{color:#98a2ad;font-weight:400}
.fold.ok .result{color:#74cf92}
.fold.failed .result,.fold.timeout .result{color:#f38d84}
.fold.running .result{color:#e8bd62}
.fold .soft{color:#98a2ad;font-weight:400}
.x1{font-weight:700}.x2{opacity:.8}.x4{font-style:italic}.x8{text-decoration:underline}.x32{text-decoration:line-through}.x8.x32{text-decoration:underline line-through}
.signin,.notice{max-width:26em;margin:8vh auto 0;padding:24px;border:1px solid var(--line);border-radius:10px;background:var(--card)}
.notice{max-width:36em}
.notice>:last-child{margin-bottom:0}
.signin form{display:flex;flex-direction:column;gap:8px;margin-top:14px}
.signin button{margin-top:8px;justify-content:center}
.problem{color:var(--bad);margin:0}
.drift td,.drift th{background:var(--bad-bg)}
.drift .pill{background:var(--card)}
.fleet th:first-child{padding-left:10px}
.sum+.fleet{margin-top:14px}
@media (max-width:820px){
main,footer{padding-left:14px;padding-right:14px}
.top{padding:9px 14px}
.top nav{gap:12px}
.head .filter{margin-left:0;width:100%}
.head input[type=search]{width:100%}
.head .filter label{flex:1}
.repos thead,.runs thead{display:none}
.repos tr,.runs tr{display:grid;grid-template-columns:1fr auto;gap:2px 10px;padding:9px 0;border-bottom:1px solid var(--line)}
.repos tr[hidden]{display:none}
.repos tr{grid-template-columns:auto 1fr auto}
.repos th[scope=row]{grid-column:1/3}
.repos th,.repos td,.runs th,.runs td{border:0;padding:0;max-width:none}
.repos .what,.runs .what{grid-column:1/-1;width:auto;max-width:100%}
.repos .state{text-align:right}
.what+.by{padding:0}
.runs .by{grid-column:1}
.runs .num{grid-column:2;padding:0}
.repos .num{padding:0}
.repos .by:empty+.when{grid-column:1/3}
.repos .none .bar{display:none}
.repos .bar{grid-column:1/-1;width:auto;overflow:hidden;margin-top:4px}
.runs .when{text-align:right;grid-column:2;grid-row:1}
.runs .why{grid-column:1/-1}
.runs .why:empty,.repos .by:empty,.runs .by:empty{display:none}
.now li{flex-wrap:wrap}
.now .title{flex-basis:100%;order:9}
.now .title:empty{display:none}
.now .clock{margin-left:auto}
.n{width:52px;padding-right:10px}
.lines{font-size:12px}
.tools input{width:100%}
.plot figcaption{font-size:12px}
.logbar .raw{order:1}
.logbar .tools{order:2;flex-basis:100%}
.tools output{min-width:0}
.tools output:empty{display:none}
.fleet thead{display:none}
.fleet tr{display:grid;grid-template-columns:1fr auto;gap:2px 10px;padding:9px 10px;border-bottom:1px solid var(--line)}
.fleet tr.drift{background:var(--bad-bg)}
.fleet th,.fleet td,.fleet th:first-child{border:0;padding:0}
.fleet .repo{grid-row:2;grid-column:1}
.fleet .state{grid-row:1;grid-column:2;text-align:right}
.fleet .when{grid-column:2;text-align:right}
.fleet .serves{grid-column:1}
.fleet .when::before,.fleet .wanted::before{content:attr(data-is) " ";color:var(--soft);font-family:system-ui,sans-serif}
.fleet .why{grid-column:1/-1}
.fleet td:empty{display:none}
}
@media (max-width:480px){
.top .brand{margin-right:0}
.plot text{font-size:30px}
.plot .day{display:none}
.plot circle{r:8px}
.top{flex-wrap:wrap;gap:4px 12px}
.top nav{flex-wrap:wrap}
.who{margin-left:auto;min-width:0}
}
@media (forced-colors:active){
.row.marked,button[aria-pressed=true]{forced-color-adjust:none;background:Highlight;color:HighlightText}
.row.marked .n{color:HighlightText}
.row.hit{outline:1px solid Highlight;outline-offset:-1px}
}
@media (prefers-reduced-motion:reduce){*{scroll-behavior:auto!important;transition:none!important}}
`,
  },
} as const;

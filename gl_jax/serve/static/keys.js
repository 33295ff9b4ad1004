// Keyboard shortcuts, and the dialog that lists them.

import { S } from "./strings.js";

const ARROW = 80; // CSS pixels by which an arrow key moves the photo

/** Connects keys with actions; `actions` are functions by name. */
export function connect(actions, tools, viewer) {
  const plain = {
    b: () => actions.tool("brush"), e: () => actions.tool("eraser"),
    r: () => actions.tool("rectangle"), l: () => actions.tool("lasso"),
    w: () => actions.tool("wand"), h: () => actions.tool("hand"),
    "[": () => tools.step(-1), "]": () => tools.step(1),
    i: actions.invert, m: actions.last, c: actions.compare,
    "+": () => actions.grow(1), "=": () => actions.grow(1), "-": () => actions.grow(-1),
    delete: actions.clear, backspace: actions.clear,
    0: () => viewer.fit(),
    arrowleft: () => viewer.pan(ARROW, 0), arrowright: () => viewer.pan(-ARROW, 0),
    arrowup: () => viewer.pan(0, ARROW), arrowdown: () => viewer.pan(0, -ARROW),
    "?": actions.help, enter: actions.run, escape: actions.escape,
    pageup: () => actions.next(-1), pagedown: () => actions.next(1),
  };
  for (let times = 1; times <= 8; times++) plain[times] = () => viewer.actualSize(times);
  const control = {
    o: actions.open, s: actions.save, c: actions.copy, y: actions.redo,
    z: (event) => (event.shiftKey ? actions.redo() : actions.undo()),
  };

  addEventListener("keydown", (event) => {
    const { target } = event;
    if (document.querySelector("dialog[open]")) return;
    const typing = target.closest?.("input:not([type=range], [type=checkbox], [type=radio]), select");
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (typing || !control[key] || event.altKey) return;
      // If text is selected, the browser copies the text.
      if (key === "c" && String(getSelection())) return;
      event.preventDefault();
      control[key](event);
      return;
    }
    if (typing || event.altKey) return;
    const onButton = target.closest?.("button, summary, input, [role=slider]");
    if (key.startsWith("arrow") && onButton) return; // the element's own
    if (key === " " && !onButton) {
      event.preventDefault();
      actions.space(true);
    } else if ((key === "tab" && viewer.stage.matches(":hover") && !onButton) || key === "o") {
      event.preventDefault();
      viewer.showOriginal(true);
    } else if (key === "r" && event.shiftKey) {
      actions.run();
    } else if (plain[key] && !(key === "enter" && target.closest?.("button, summary"))) {
      event.preventDefault();
      plain[key](event);
    }
  });
  addEventListener("keyup", (event) => {
    if (event.key === " ") actions.space(false);
    if (["tab", "o"].includes(event.key.toLowerCase())) viewer.showOriginal(false);
  });
  addEventListener("blur", () => {
    actions.space(false);
    viewer.showOriginal(false);
  });
}

/** Fills `element` with tables of the keys. */
export function list(element) {
  for (const [title, rows] of S.keys) {
    const table = document.createElement("table");
    table.createCaption().textContent = title;
    for (const [keys, text] of rows) {
      const row = table.insertRow();
      const cell = row.insertCell();
      for (const key of keys.split("  ")) {
        const mark = document.createElement("kbd");
        mark.textContent = key;
        cell.append(mark);
      }
      row.insertCell().textContent = text;
    }
    element.append(table);
  }
}

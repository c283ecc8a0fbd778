/**
 * A badge by each cell's prompt, in JupyterLab and Notebook 7. What it says is decided in model.js; this file watches
 * notebooks and kernels, and draws.
 *
 * The badge sits in the input area, not in the prompt: JupyterLab rewrites the prompt on every run.
 */
import { STATES, badges, panel, saved } from "./model.js";

const TARGET = "durable_nb";
const KERNEL = "durable_nb";

const STYLE = `
.durable-nb-badge {
  position: absolute; left: 2px; top: 5px; z-index: 1;
  width: 18px; height: 18px; padding: 0; border-radius: 50%;
  border: 1px solid currentColor; background: var(--jp-layout-color1); cursor: pointer;
  font: 600 11px/16px var(--jp-ui-font-family); text-align: center;
  color: var(--durable-nb-tone);
}
.durable-nb-badge:focus-visible { outline: 2px solid var(--jp-brand-color1); outline-offset: 1px; }
.durable-nb-badge[data-state="durable"] { --durable-nb-tone: #2e7d32; }
.durable-nb-badge[data-state="replayed"] { --durable-nb-tone: #1565c0; }
.durable-nb-badge[data-state="stored"] { --durable-nb-tone: #757575; }
.durable-nb-badge[data-state="running"], .durable-nb-badge[data-state="waiting"] { --durable-nb-tone: #1565c0; }
.durable-nb-badge[data-state="stale"] { --durable-nb-tone: #b26a00; }
.durable-nb-badge[data-state="not_storable"] { --durable-nb-tone: #b26a00; }
.durable-nb-badge[data-state="failed"], .durable-nb-badge[data-state="refused"] { --durable-nb-tone: #c62828; }
[data-jp-theme-light="false"] .durable-nb-badge[data-state="durable"] { --durable-nb-tone: #81c784; }
[data-jp-theme-light="false"] .durable-nb-badge[data-state="replayed"],
[data-jp-theme-light="false"] .durable-nb-badge[data-state="running"],
[data-jp-theme-light="false"] .durable-nb-badge[data-state="waiting"] { --durable-nb-tone: #64b5f6; }
[data-jp-theme-light="false"] .durable-nb-badge[data-state="stored"] { --durable-nb-tone: #bdbdbd; }
[data-jp-theme-light="false"] .durable-nb-badge[data-state="stale"],
[data-jp-theme-light="false"] .durable-nb-badge[data-state="not_storable"] { --durable-nb-tone: #ffb74d; }
[data-jp-theme-light="false"] .durable-nb-badge[data-state="failed"],
[data-jp-theme-light="false"] .durable-nb-badge[data-state="refused"] { --durable-nb-tone: #e57373; }
.durable-nb-panel {
  position: fixed; z-index: 10000; max-width: 460px; padding: 8px 12px;
  border: 1px solid var(--jp-border-color1); border-radius: 3px;
  background: var(--jp-layout-color1); color: var(--jp-ui-font-color1); box-shadow: var(--jp-elevation-z4);
  font: 13px/1.5 var(--jp-ui-font-family);
}
.durable-nb-panel b, .durable-nb-panel span, .durable-nb-panel div { display: block; overflow-wrap: anywhere; }
.durable-nb-panel span { color: var(--jp-ui-font-color2); }
.durable-nb-panel pre { margin: 4px 0; max-height: 12em; overflow: auto; font-size: 11px; }
.durable-nb-panel div.durable-nb-actions { display: flex; gap: 6px; margin-top: 6px; }
.durable-nb-panel button {
  background: var(--jp-layout-color2); color: inherit; border: 1px solid var(--jp-border-color1);
  border-radius: 3px; font: inherit; padding: 1px 10px; cursor: pointer;
}
.durable-nb-panel button:hover { background: var(--jp-layout-color3); }
`;

/** @type {Record<string, string>} */
const ACTIONS = {
  rerun: "Run anew",
  cancel: "Cancel",
  succeeded: "It happened",
  again: "Run again",
  failed: "Mark failed",
  keep: "Keep the result",
};

/**
 * @param {any} app
 * @param {any} tracker
 */
export function activate(app, tracker) {
  const style = document.createElement("style");
  style.textContent = STYLE;
  document.head.append(style);
  tracker.widgetAdded.connect((/** @type {any} */ _, /** @type {any} */ page) => new Watch(app, page));
  tracker.forEach((/** @type {any} */ page) => new Watch(app, page));
}

/** One notebook in the page, and the kernel behind it. */
class Watch {
  /**
   * @param {any} app
   * @param {any} page
   */
  constructor(app, page) {
    this.app = app;
    this.page = page;
    /** @type {Map<string, import("./model.js").Info>} */
    this.infos = new Map();
    /** @type {Map<string, import("./model.js").Planned>} */
    this.planned = new Map();
    /** @type {any} */
    this.comm = null;
    this.requests = 0;
    /** @type {Map<number, (error: string | null) => void>} */
    this.waiting = new Map();
    this.drawing = false;
    /** Cells whose elements will be, or have been, waited for. */
    this.followed = new WeakSet();
    /** @type {HTMLElement | null} */
    this.open = null;
    const context = page.sessionContext;
    context.kernelChanged.connect(() => this.connect());
    context.statusChanged.connect((/** @type {any} */ _, /** @type {string} */ status) => {
      if (status === "restarting" || status === "autorestarting") this.forget();
      if (status === "idle" && !this.comm) this.connect();
    });
    context.ready.then(() => this.connect());
    page.content.modelContentChanged.connect(() => this.redraw());
    page.content.modelChanged.connect(() => this.redraw());
    page.disposed.connect(() => {
      this.attached.disconnect();
      this.close();
    });
    this.keepWidgetsOut();
    // Cells get elements of their own when they come into view, or when the page has time: long after they are known.
    this.attached = new MutationObserver(() => this.redraw());
    const cells = page.content.node.querySelector(".jp-WindowedPanel-viewport") ?? page.content.node;
    this.attached.observe(cells, { childList: true });
    page.content.node.addEventListener("scroll", () => this.redraw(), { capture: true, passive: true });
    this.redraw();
  }

  /**
   * A notebook that is saved while a step runs or waits for a decision holds the line that stays, not the widget, which
   * nobody could show again.
   */
  keepWidgetsOut() {
    const wrap = () => {
      const model = this.page.content.model;
      if (!model || model.durableNbSaves) return;
      const original = model.toJSON.bind(model);
      model.toJSON = () => saved(original());
      model.durableNbSaves = true;
    };
    wrap();
    this.page.content.modelChanged.connect(wrap);
  }

  /** A fresh kernel knows nothing of what the old one told. */
  forget() {
    this.comm = null;
    this.infos.clear();
    this.planned.clear();
    this.redraw();
  }

  connect() {
    const kernel = this.page.sessionContext.session?.kernel;
    if (!kernel || (this.kernel === kernel && this.comm)) return;
    if (this.kernel !== kernel) {
      this.forget();
      this.kernel = kernel;
      kernel.registerCommTarget(TARGET, (/** @type {any} */ comm) => this.listen(comm));
    }
    if (kernel.name !== KERNEL || kernel.status === "restarting") return;
    const comm = kernel.createComm(TARGET);
    this.listen(comm);
    comm.open({});
  }

  /** @param {any} comm */
  listen(comm) {
    this.comm = comm;
    comm.onMsg = (/** @type {any} */ message) => this.take(message.content.data);
    comm.onClose = () => {
      if (this.comm === comm) this.comm = null;
    };
  }

  /** @param {any} data */
  take(data) {
    if (data.kind === "cells") {
      for (const info of data.cells) this.infos.set(info.id, info);
      if (data.cells.length === 0) this.ask({ kind: "plan", cells: this.page.content.model.toJSON().cells });
    } else if (data.kind === "plan") {
      this.planned = new Map(data.rows.map((/** @type {any} */ row) => [row.id, row]));
    } else if (data.kind === "answer") {
      this.waiting.get(data.request)?.(data.error);
      this.waiting.delete(data.request);
    }
    this.redraw();
  }

  /**
   * Send a request; the promise gives the kernel's complaint, or null.
   * @param {object} data
   * @returns {Promise<string | null>}
   */
  ask(data) {
    const request = ++this.requests;
    return new Promise((resolve) => {
      if (!this.comm) return resolve("the kernel is not connected");
      this.waiting.set(request, resolve);
      this.comm.send({ ...data, request });
    });
  }

  redraw() {
    if (this.drawing || this.page.isDisposed) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      if (!this.page.isDisposed) this.draw();
    });
  }

  draw() {
    const widgets = this.page.content.widgets.filter((/** @type {any} */ cell) => cell.model.type === "code");
    const cells = widgets.map((/** @type {any} */ cell) => ({
      id: cell.model.id,
      source: cell.model.sharedModel.getSource(),
    }));
    const found = badges(cells, this.infos, this.planned);
    for (const cell of widgets) {
      this.follow(cell);
      this.place(cell, found.get(cell.model.id) ?? null);
    }
  }

  /** @param {any} cell */
  follow(cell) {
    if (this.followed.has(cell)) return;
    this.followed.add(cell);
    cell.ready?.then(() => this.redraw());
    cell.inViewportChanged?.connect(() => this.redraw());
  }

  /**
   * @param {any} cell
   * @param {import("./model.js").Badge | null} badge
   */
  place(cell, badge) {
    const area = cell.inputArea?.node ?? cell.node.querySelector(".jp-InputArea");
    if (!area) return;
    let mark = /** @type {HTMLButtonElement | null} */ (area.querySelector(":scope > .durable-nb-badge"));
    if (!badge) {
      mark?.remove();
      return;
    }
    if (!mark) {
      mark = document.createElement("button");
      mark.type = "button";
      mark.className = "durable-nb-badge";
      area.style.position = "relative";
      area.append(mark);
    }
    const { head, reason, figures } = panel(badge, new Date());
    const said = [head, reason, ...figures].filter(Boolean).join("; ");
    const attempt = badge.info?.attempt ?? 1;
    mark.dataset.state = badge.state;
    mark.textContent = badge.state === "running" && attempt > 1 ? String(attempt) : STATES[badge.state].glyph;
    mark.title = said;
    mark.setAttribute("aria-label", `Durable cell ${said}`);
    mark.onclick = (event) => {
      event.stopPropagation();
      this.show(cell, badge, /** @type {HTMLElement} */ (mark));
    };
  }

  /**
   * The panel of a badge.
   * @param {any} cell
   * @param {import("./model.js").Badge} badge
   * @param {HTMLElement} mark
   */
  show(cell, badge, mark) {
    this.close();
    const { head, reason, figures, difference } = panel(badge, new Date());
    const box = document.createElement("div");
    box.className = "durable-nb-panel";
    box.setAttribute("role", "dialog");
    box.setAttribute("aria-label", "Durable cell");
    /** @param {keyof HTMLElementTagNameMap} tag @param {string} text */
    const add = (tag, text) => {
      if (!text) return;
      const element = document.createElement(tag);
      element.textContent = text;
      box.append(element);
    };
    add("b", head);
    add("span", reason);
    add("span", figures.join(" · "));
    add("pre", difference.join("\n"));
    const actions = document.createElement("div");
    actions.className = "durable-nb-actions";
    for (const action of badge.info?.actions ?? []) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = ACTIONS[action] ?? action;
      button.onclick = () => this.press(cell, action, box);
      actions.append(button);
    }
    if (actions.childElementCount) box.append(actions);
    const place = mark.getBoundingClientRect();
    box.style.left = `${place.right + 6}px`;
    box.style.top = `${place.top}px`;
    document.body.append(box);
    // Not below the edge of the window.
    box.style.top = `${Math.max(8, Math.min(place.top, window.innerHeight - box.offsetHeight - 8))}px`;
    this.open = box;
    (box.querySelector("button") ?? mark).focus();
    this.away = (/** @type {Event} */ event) => {
      if (event instanceof KeyboardEvent ? event.key === "Escape" : !box.contains(/** @type {Node} */ (event.target))) {
        this.close();
        if (event instanceof KeyboardEvent) mark.focus();
      }
    };
    document.addEventListener("pointerdown", this.away, true);
    document.addEventListener("keydown", this.away, true);
  }

  close() {
    this.open?.remove();
    this.open = null;
    if (this.away) {
      document.removeEventListener("pointerdown", this.away, true);
      document.removeEventListener("keydown", this.away, true);
      this.away = undefined;
    }
  }

  /**
   * @param {any} cell
   * @param {string} action
   * @param {HTMLElement} box
   */
  async press(cell, action, box) {
    const id = cell.model.id;
    const decides = !["rerun", "cancel"].includes(action);
    const error = await this.ask(decides ? { kind: "decide", id, decision: action } : { kind: action, id });
    if (error) {
      const told = document.createElement("span");
      told.setAttribute("role", "alert");
      told.textContent = error;
      box.append(told);
      return;
    }
    this.close();
    if (action === "cancel" || action === "failed") return;
    this.page.content.activeCellIndex = this.page.content.widgets.indexOf(cell);
    await this.app.commands.execute("notebook:run-cell");
  }
}

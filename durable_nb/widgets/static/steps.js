/**
 * The live widget of a step: state, attempts, the last error, a count-down that runs in the page, and buttons.
 *
 * The kernel sets `state`; everything shown follows from it and from the clock of this page (`describe`, which is pure).
 * A press goes back as `{kind, run}`. All text is set as text, never as HTML.
 */

/**
 * @typedef {object} Failure
 * @property {number} attempt
 * @property {string} line one line, such as `ConnectionError: refused`
 * @property {string} traceback
 */

/**
 * @typedef {object} State
 * @property {number} run tells one run of a cell from the next
 * @property {string} label
 * @property {"running" | "waiting" | "sleeping" | "saving" | "stopping" | "stuck" | "refused" | "decided"} phase
 * @property {number} attempt
 * @property {number} attempts how many may be made
 * @property {number} elapsed seconds that the run had taken when the state was sent
 * @property {number} written bytes that went to the store since the run began
 * @property {number | null} left seconds to the next attempt when the state was sent
 * @property {number | null} delay seconds that this whole wait takes
 * @property {Failure | null} error of the last attempt
 * @property {string} waits what a durable call inside waits for, while it does
 * @property {string} [on] the cluster that runs it
 * @property {string} remark
 * @property {string[]} actions kinds of buttons, the likeliest first
 */

/**
 * @typedef {object} View
 * @property {string} title
 * @property {string} status said aloud when it changes
 * @property {string} clock changes every second, and is not said aloud
 * @property {number | null} progress of the wait, 0 to 1
 * @property {("failed" | "current" | "open")[]} marks one for each attempt
 * @property {{kind: string, label: string, help: string}[]} buttons
 * @property {string} tone
 */

/** @type {Record<string, [string, string]>} label, and what it does */
export const BUTTONS = {
  retry: ["Retry now", "Start the next attempt without waiting"],
  go: ["Go on now", "End this wait before its time"],
  anew: ["Run anew", "Forget the attempts made and begin with the first"],
  cancel: ["Cancel", "Stop this cell, as the stop button does"],
  succeeded: ["It happened", "The step counts as done and is not run"],
  again: ["Run again", "Allow the step to run once more"],
  failed: ["Mark failed", "The step counts as failed"],
  keep: ["Keep the result", "The recorded result stays valid"],
};

const MOST_MARKS = 12;

/** Seconds after which a press that nobody has answered is said to be waiting. */
const PATIENCE = 3;
export const UNANSWERED = "no answer yet: the kernel is in code that never looks for signals, and acts when that returns";

/**
 * @param {number} seconds
 * @returns {string} `0.4 s`, `12 s`, `3 min 05 s`, `2 h 05 min`
 */
export function lasting(seconds) {
  const most = Math.max(0, seconds);
  if (most < 9.95) return `${most.toFixed(1)} s`;
  const whole = Math.round(most);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/**
 * @param {number} bytes
 * @returns {string} `17 B`, `3.4 kB`, `800 MB`
 */
export function amount(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit > 0 && value < 9.95 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/**
 * What to show.
 * @param {State} state
 * @param {number} since seconds on this page's clock since the state came
 * @returns {View}
 */
export function describe(state, since) {
  const { phase, attempt, attempts } = state;
  const which = attempts > 1 ? `attempt ${attempt} of ${attempts}` : "";
  const running = ["running", which, state.on ? `on ${state.on}` : ""].filter(Boolean).join(" ");
  const elapsed = lasting(state.elapsed + since);
  const left = Math.max(0, (state.left ?? 0) - since);
  /** @type {Record<State["phase"], [string, string, string]>} */
  const words = {
    running: [running, elapsed, "busy"],
    waiting: [`attempt ${attempt} of ${attempts} failed`, `next attempt in ${lasting(left)}`, "wait"],
    sleeping: [state.waits, state.left === null ? elapsed : `goes on in ${lasting(left)}`, "wait"],
    saving: ["saving the checkpoint", elapsed, "busy"],
    stopping: ["stopping", elapsed, "wait"],
    stuck: ["does not react: it is in code that never looks for signals", `stops when that returns (${elapsed})`, "bad"],
    refused: ["needs your decision", "", "bad"],
    decided: ["decided", "", "busy"],
  };
  const [status, clock, tone] = words[phase];
  const delay = state.delay ?? 0;
  return {
    title: state.label,
    status,
    clock: state.written > 0 && clock ? `${clock}, ${amount(state.written)} written` : clock,
    tone,
    progress: (phase === "waiting" || phase === "sleeping") && delay > 0 ? Math.min(1, 1 - left / delay) : null,
    marks: marksOf(state),
    buttons: state.actions
      .filter((kind) => kind in BUTTONS)
      .map((kind) => ({ kind, label: BUTTONS[kind][0], help: BUTTONS[kind][1] })),
  };
}

/**
 * @param {State} state
 * @returns {View["marks"]}
 */
function marksOf({ phase, attempt, attempts }) {
  if (attempts < 2 || attempts > MOST_MARKS || phase === "refused" || phase === "decided") return [];
  return Array.from({ length: attempts }, (_, index) => {
    if (index + 1 < attempt) return "failed";
    if (index + 1 > attempt) return "open";
    return phase === "waiting" ? "failed" : "current";
  });
}

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} [name]
 * @param {string} [text]
 */
function make(tag, name = "", text = "") {
  const element = document.createElement(tag);
  if (name) element.className = `durable-nb-${name}`;
  if (text) element.textContent = text;
  return element;
}

/**
 * @param {{model: {get(name: string): any, on(event: string, call: () => void): void,
 *   off(event: string, call: () => void): void, send(content: any): void}, el: HTMLElement}} context
 */
function render({ model, el }) {
  const box = make("div", "step");
  box.setAttribute("role", "group");
  const head = make("div", "head");
  const title = make("span", "title");
  const marks = make("span", "marks");
  marks.setAttribute("aria-hidden", "true");
  const status = make("span", "status");
  status.setAttribute("role", "status");
  const clock = make("span", "clock");
  clock.setAttribute("role", "timer");
  clock.setAttribute("aria-live", "off");
  const buttons = make("span", "buttons");
  head.append(title, marks, status, clock, buttons);
  const bar = make("div", "bar");
  const filled = make("div", "filled");
  bar.append(filled);
  const remark = make("div", "remark");
  const error = make("details", "error");
  const line = make("summary");
  const trace = make("pre");
  error.append(line, trace);
  box.append(head, bar, remark, error);
  el.append(box);

  let came = performance.now();
  let pressed = "";
  let pressedAt = 0;

  /** @param {string} kind */
  function press(kind) {
    const state = /** @type {State} */ (model.get("state"));
    pressed = kind;
    pressedAt = performance.now();
    for (const each of buttons.querySelectorAll("button")) each.disabled = true;
    model.send({ kind, run: state.run });
  }

  function tick() {
    const view = describe(model.get("state"), (performance.now() - came) / 1000);
    if (clock.textContent !== view.clock) clock.textContent = view.clock;
    bar.hidden = view.progress === null;
    filled.style.width = `${Math.round((view.progress ?? 0) * 1000) / 10}%`;
  }

  function draw() {
    const state = /** @type {State} */ (model.get("state"));
    came = performance.now();
    pressed = "";
    const view = describe(state, 0);
    box.dataset.tone = view.tone;
    box.setAttribute("aria-label", `Durable step ${view.title}`);
    title.textContent = view.title;
    status.textContent = view.status;
    marks.replaceChildren(...view.marks.map((kind) => make("i", `mark durable-nb-${kind}`)));
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.kind : undefined;
    buttons.replaceChildren(
      ...view.buttons.map(({ kind, label, help }) => {
        const button = make("button", "button", label);
        button.type = "button";
        button.title = help;
        button.dataset.kind = kind;
        button.addEventListener("click", () => press(kind));
        return button;
      }),
    );
    // A redraw under the fingers of somebody who uses the keyboard keeps the focus on the same button.
    if (focused) /** @type {HTMLElement | null} */ (buttons.querySelector(`[data-kind="${focused}"]`))?.focus();
    remark.textContent = state.remark;
    remark.hidden = !state.remark;
    error.hidden = !state.error;
    line.textContent = state.error ? state.error.line : "";
    trace.textContent = state.error ? state.error.traceback : "";
    trace.hidden = !state.error?.traceback;
    tick();
  }

  draw();
  model.on("change:state", draw);
  const timer = setInterval(() => {
    if (!pressed) tick();
    else if (performance.now() - pressedAt > PATIENCE * 1000 && status.textContent !== UNANSWERED) {
      status.textContent = UNANSWERED;
      box.dataset.tone = "bad";
    }
  }, 100);
  return () => {
    clearInterval(timer);
    model.off("change:state", draw);
  };
}

export default { render };

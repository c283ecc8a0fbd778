/**
 * What a badge says, from what the kernel told about each cell and the notebook as it stands in the page. Pure.
 *
 * Stale: the cell's source is not the one that ran, or it reads a name that a stale cell will make anew. The kernel is
 * not asked, so that it can be busy; what only it can know (files, packages, an equal value in spite of an edit) shows
 * when the cells run.
 */

/**
 * @typedef {object} Info what the kernel says of a cell
 * @property {string} id
 * @property {string} state durable, replayed, declared, not_storable, failed, refused, running, waiting
 * @property {string} source as it ran
 * @property {string} label
 * @property {number} [attempt]
 * @property {string} [reason]
 * @property {string[]} [difference]
 * @property {number} [seconds]
 * @property {number} [saved]
 * @property {number} [bytes]
 * @property {number} [at] seconds since the epoch
 * @property {string} [on] the cluster that runs it
 * @property {string[]} [reads]
 * @property {string[]} [writes]
 * @property {string[]} [actions]
 */

/**
 * @typedef {{id: string, action: string, cause: string, sure: boolean, reason: string, seconds: number | null}} Planned
 */
/** @typedef {{id: string, source: string}} PageCell */
/** @typedef {{state: string, reason: string, info: Info | null}} Badge */

/** @type {Record<string, {glyph: string, word: string}>} */
export const STATES = {
  durable: { glyph: "✓", word: "durable: its result is stored" },
  replayed: { glyph: "↺", word: "replayed: its stored result was given back" },
  running: { glyph: "▶", word: "running" },
  waiting: { glyph: "◷", word: "running, and waiting" },
  stale: { glyph: "~", word: "stale: it will run" },
  stored: { glyph: "✓", word: "has a stored result, which Run All will give back" },
  not_storable: { glyph: "!", word: "not stored: it runs again on a fresh kernel" },
  failed: { glyph: "✕", word: "failed" },
  refused: { glyph: "?", word: "needs your decision" },
};

/**
 * The source without what does not matter for a cell's identity, as far as a page can tell.
 * @param {string} source
 */
export function essence(source) {
  const lines = source.split("\n").map((line) => line.trimEnd());
  // In a string over several lines, blank lines and `#` are text.
  if (/'''|"""/.test(source)) return lines.join("\n").trim();
  return lines
    .map((line) => (/^\s*#\s*durable:/.test(line) ? line : withoutComment(line)))
    .filter(Boolean)
    .join("\n");
}

/**
 * A line up to its comment; a `#` in a string is none.
 * @param {string} line without strings that go on in the next line
 */
function withoutComment(line) {
  let quote = "";
  for (let at = 0; at < line.length; at++) {
    const letter = line[at];
    if (quote && letter === "\\") at++;
    else if (quote) quote = letter === quote ? "" : quote;
    else if (letter === "'" || letter === '"') quote = letter;
    else if (letter === "#") return line.slice(0, at).trimEnd();
  }
  return line;
}

/**
 * A badge for each cell, in the notebook's order; null for a cell about which there is nothing to say.
 * @param {PageCell[]} cells
 * @param {Map<string, Info>} infos
 * @param {Map<string, Planned>} planned asked before anything ran; older than any info
 * @returns {Map<string, Badge | null>}
 */
export function badges(cells, infos, planned) {
  const present = new Set(cells.map((cell) => cell.id));
  /** @type {Map<string, string>} name to the label of the stale cell that makes it */
  const dirty = new Map();
  for (const [id, info] of infos) {
    if (!present.has(id)) for (const name of info.writes ?? []) dirty.set(name, `${info.label} (deleted)`);
  }
  const found = new Map();
  for (const { id, source } of cells) {
    const info = infos.get(id);
    found.set(id, info ? judge(info, source, dirty) : foretold(planned.get(id)));
  }
  return found;
}

/**
 * @param {Info} info
 * @param {string} source
 * @param {Map<string, string>} dirty changed
 * @returns {Badge | null}
 */
function judge(info, source, dirty) {
  const writes = info.writes ?? [];
  if (info.state === "running" || info.state === "waiting") {
    return { state: info.state, reason: info.state === "waiting" ? (info.reason ?? "") : "", info };
  }
  const read = (info.reads ?? []).find((name) => dirty.has(name));
  const edited = essence(source) !== essence(info.source);
  if (edited || read !== undefined) {
    const reason = edited ? "its source was edited" : `it reads ${read}, which ${dirty.get(read ?? "")} will make anew`;
    for (const name of writes) dirty.set(name, short(info.label));
    return info.state === "declared" && !edited ? null : { state: "stale", reason, info };
  }
  for (const name of writes) dirty.delete(name);
  return info.state in STATES ? { state: info.state, reason: info.reason ?? "", info } : null;
}

/** @param {string} text */
function short(text) {
  return text.length <= 40 ? text : `${text.slice(0, 39)}…`;
}

/**
 * @param {Planned | undefined} row
 * @returns {Badge | null}
 */
function foretold(row) {
  // A cell that never ran is not stale: there is nothing to say about it.
  /** @type {Record<string, string>} */
  const runs = { changed: "stale", "not storable": "not_storable" };
  /** @type {Record<string, string | undefined>} */
  const states = { replay: "stored", run: runs[row?.cause ?? ""], decide: "refused" };
  const state = row && states[row.action];
  if (!row || !state) return null;
  return { state, reason: row.sure ? row.reason : `probably: ${row.reason}`, info: null };
}

/** @param {number} seconds */
export function lasting(seconds) {
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** @param {number} count */
export function size(count) {
  let amount = count;
  for (const unit of ["B", "kB", "MB"]) {
    if (amount < 999.5) return `${unit === "B" ? Math.round(amount) : amount.toFixed(1)} ${unit}`;
    amount /= 1000;
  }
  return `${amount.toFixed(1)} GB`;
}

/**
 * When a result was made, as people say it.
 * @param {number} at seconds since the epoch
 * @param {Date} now
 */
export function moment(at, now) {
  const then = new Date(at * 1000);
  const time = `${String(then.getHours()).padStart(2, "0")}:${String(then.getMinutes()).padStart(2, "0")}`;
  const midnight = new Date(now);
  midnight.setHours(0, 0, 0, 0);
  const days = Math.ceil((midnight.getTime() - then.getTime()) / 86_400_000);
  if (days <= 0) return `today ${time}`;
  if (days === 1) return `yesterday ${time}`;
  return `${then.getFullYear()}-${String(then.getMonth() + 1).padStart(2, "0")}-${String(then.getDate()).padStart(2, "0")} ${time}`;
}

/**
 * The lines of a badge's panel: what it is, why, and figures.
 * @param {Badge} badge
 * @param {Date} now
 * @returns {{head: string, reason: string, figures: string[], difference: string[]}}
 */
export function panel(badge, now) {
  const { state, info } = badge;
  const word = state === "running" && (info?.attempt ?? 1) > 1 ? `running attempt ${info?.attempt}` : STATES[state].word;
  const head = state === "running" && info?.on ? `${word} on ${info.on}` : word;
  const figures = [];
  if (info && state !== "running" && state !== "waiting") {
    if (state === "replayed" && info.at) figures.push(`made ${moment(info.at, now)}`);
    if (state === "replayed" && info.saved) figures.push(`saved ${lasting(info.saved)}`);
    if (state === "durable" && info.seconds !== undefined) figures.push(`took ${lasting(info.seconds)}`);
    if (state === "durable" && info.bytes) figures.push(`${size(info.bytes)} written`);
    if (info.on) figures.push(`on ${info.on}`);
    if ((info.attempt ?? 1) > 1) figures.push(`${info.attempt} attempts`);
  }
  return { head, reason: badge.reason, figures, difference: info?.difference ?? [] };
}

const WIDGET = "application/vnd.jupyter.widget-view+json";

/**
 * A notebook as it is to be saved: the live displays of steps without their widgets.
 * @template {{cells?: any[]}} Notebook
 * @param {Notebook} notebook changed
 * @returns {Notebook}
 */
export function saved(notebook) {
  for (const cell of notebook.cells ?? []) {
    for (const output of cell.outputs ?? []) {
      if (!output.metadata?.durable_nb?.live) continue;
      const { durable_nb: _, ...metadata } = output.metadata;
      const { [WIDGET]: __, ...data } = output.data;
      Object.assign(output, { data, metadata });
    }
  }
  return notebook;
}

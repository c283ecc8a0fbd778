import assert from "node:assert/strict";
import { test } from "node:test";

import { badges, essence, lasting, moment, panel, saved, size } from "../../durable_nb/widgets/labextension/static/model.js";

const info = (id, changes = {}) => ({ id, state: "durable", source: id, label: id, reads: [], writes: [], ...changes });
const told = (...infos) => new Map(infos.map((each) => [each.id, each]));
const states = (cells, infos, planned = new Map()) =>
  [...badges(cells, infos, planned).values()].map((badge) => badge && badge.state);

const chain = told(
  info("a", { writes: ["a"] }),
  info("b", { reads: ["a"], writes: ["b"] }),
  info("c", { reads: ["b"], writes: ["c"] }),
  info("d", { reads: [], writes: ["d"] }),
);
const cells = (changes = {}) => ["a", "b", "c", "d"].map((id) => ({ id, source: changes[id] ?? id }));

test("nothing is stale while nothing is edited", () => {
  assert.deepEqual(states(cells(), chain), ["durable", "durable", "durable", "durable"]);
});

test("an edited cell and all that depends on it are stale, and nothing else", () => {
  assert.deepEqual(states(cells({ a: "a + 1" }), chain), ["stale", "stale", "stale", "durable"]);
  assert.deepEqual(states(cells({ c: "c + 1" }), chain), ["durable", "durable", "stale", "durable"]);
});

test("a stale reader names the cell that makes what it reads", () => {
  const found = badges(cells({ a: "a + 1" }), chain, new Map());
  assert.equal(found.get("b").reason, "it reads a, which a will make anew");
  assert.equal(found.get("c").reason, "it reads b, which b will make anew");
});

test("a cell that binds a name anew ends the staleness of that name", () => {
  const infos = told(info("a", { writes: ["x"] }), info("b", { writes: ["x"] }), info("c", { reads: ["x"] }));
  const list = [{ id: "a", source: "edited" }, { id: "b", source: "b" }, { id: "c", source: "c" }];
  assert.deepEqual(states(list, infos), ["stale", "durable", "durable"]);
});

test("what read from a deleted cell is stale", () => {
  assert.deepEqual(states(cells().slice(1), chain), ["stale", "stale", "durable"]);
});

test("an edited declaration makes its readers stale, and has no badge otherwise", () => {
  const infos = told(info("a", { state: "declared", writes: ["n"] }), info("b", { reads: ["n"] }));
  const list = (source) => [{ id: "a", source }, { id: "b", source: "b" }];
  assert.deepEqual(states(list("a"), infos), [null, "durable"]);
  assert.deepEqual(states(list("n = 2"), infos), ["stale", "stale"]);
});

test("comments, blank lines and trailing spaces are no edit; options in a comment and text in strings are", () => {
  assert.equal(essence("a = 1  \n\n# why\nb = 2"), essence("a = 1\nb = 2"));
  assert.equal(essence("a = t['x'] * 2  # why"), essence("a = t['x'] * 2"));
  assert.notEqual(essence("a = 'x # y'"), essence("a = 'x '"));
  assert.notEqual(essence('a = "it\'s # y"'), essence('a = "it\'s '));
  assert.notEqual(essence("# durable: off\na"), essence("a"));
  assert.notEqual(essence("s = '''\n# a\n'''"), essence("s = '''\n'''"));
});

test("before anything has run the plan speaks, and what has run is newer", () => {
  const planned = new Map([
    ["a", { id: "a", action: "replay", sure: true, reason: "r", seconds: 1 }],
    ["b", { id: "b", action: "run", cause: "changed", sure: false, reason: "r", seconds: null }],
    ["c", { id: "c", action: "decide", sure: true, reason: "r", seconds: null }],
    ["d", { id: "d", action: "declare", sure: true, reason: "", seconds: null }],
  ]);
  assert.deepEqual(states(cells(), new Map(), planned), ["stored", "stale", "refused", null]);
  assert.deepEqual(states(cells(), told(info("a", { state: "replayed" })), planned)[0], "replayed");
  assert.equal(badges(cells(), new Map(), planned).get("b").reason, "probably: r");
});

test("before anything has run, a cell that cannot be stored is called so, and one that never ran has no badge", () => {
  const row = (id, cause) => [id, { id, action: "run", cause, sure: true, reason: "r", seconds: null }];
  const planned = new Map([row("a", "not storable"), row("b", "new"), row("c", "changed"), row("d", "")]);
  assert.deepEqual(states(cells(), new Map(), planned), ["not_storable", null, "stale", null]);
});

test("a waiting cell says for what", () => {
  const infos = told(info("a", { state: "waiting", reason: "waiting: pause" }));
  const badge = badges([{ id: "a", source: "a" }], infos, new Map()).get("a");
  assert.deepEqual([badge.state, badge.reason], ["waiting", "waiting: pause"]);
  assert.deepEqual(panel(badge, new Date()).figures, []);
});

test("a notebook that is saved while a step is shown live holds the line, and no widget of ours", () => {
  const view = "application/vnd.jupyter.widget-view+json";
  const live = { data: { [view]: {}, "text/plain": "line" }, metadata: { durable_nb: { live: true }, other: 1 } };
  const users = { data: { [view]: {}, "text/plain": "slider" }, metadata: {} };
  const notebook = { cells: [{ outputs: [live, users, { output_type: "stream", text: "x" }] }, { source: "text" }] };
  const [first, second] = saved(notebook).cells[0].outputs;
  assert.deepEqual(first, { data: { "text/plain": "line" }, metadata: { other: 1 } });
  assert.deepEqual(Object.keys(second.data), [view, "text/plain"]);
});

test("a running cell says which attempt it is", () => {
  const badge = { state: "running", reason: "", info: info("a", { state: "running", attempt: 2 }) };
  assert.equal(panel(badge, new Date()).head, "running attempt 2");
});

test("a cell on a cluster says where it runs, and where it ran", () => {
  const running = { state: "running", reason: "", info: info("a", { state: "running", on: "dask://host:1" }) };
  assert.equal(panel(running, new Date()).head, "running on dask://host:1");
  const done = { state: "durable", reason: "", info: info("a", { seconds: 2, on: "dask://host:1" }) };
  assert.deepEqual(panel(done, new Date()).figures, ["took 2.0 s", "on dask://host:1"]);
});

test("a replayed cell says when it was made and what that saved", () => {
  const now = new Date(2026, 10, 24, 12, 0);
  const at = new Date(2026, 10, 23, 17, 2).getTime() / 1000;
  const badge = { state: "replayed", reason: "same", info: info("a", { at, saved: 192 }) };
  assert.deepEqual(panel(badge, now).figures, ["made yesterday 17:02", "saved 3 min 12 s"]);
});

test("moments and sizes are written as people read them", () => {
  const now = new Date(2026, 10, 24, 12, 0);
  const say = (...when) => moment(new Date(...when).getTime() / 1000, now);
  assert.deepEqual(
    [say(2026, 10, 24, 9, 5), say(2026, 10, 23, 0, 1), say(2026, 10, 22, 23, 59)],
    ["today 09:05", "yesterday 00:01", "2026-11-22 23:59"],
  );
  assert.deepEqual([812, 3400, 1.2e9].map(size), ["812 B", "3.4 kB", "1.2 GB"]);
  assert.equal(lasting(0.085), "85 ms");
});

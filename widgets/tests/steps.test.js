import assert from "node:assert/strict";
import { test } from "node:test";

import { BUTTONS, amount, describe, lasting } from "../../durable_nb/widgets/static/steps.js";

const state = (changes = {}) => ({
  run: 1,
  label: "load",
  phase: "running",
  attempt: 1,
  attempts: 3,
  elapsed: 0,
  written: 0,
  left: null,
  delay: null,
  error: null,
  waits: "",
  remark: "",
  actions: ["cancel"],
  ...changes,
});

test("durations are written as people read them", () => {
  assert.deepEqual([0, 0.44, 9.96, 59.4, 60, 185, 7500, -3].map(lasting), [
    "0.0 s",
    "0.4 s",
    "10 s",
    "59 s",
    "1 min 00 s",
    "3 min 05 s",
    "2 h 05 min",
    "0.0 s",
  ]);
});

test("amounts are written as people read them", () => {
  assert.deepEqual([0, 999, 1000, 9949, 12_345, 999_600, 800e6, 2.5e15].map(amount), [
    "0 B",
    "999 B",
    "1.0 kB",
    "9.9 kB",
    "12 kB",
    "1.0 MB",
    "800 MB",
    "2500 TB",
  ]);
});

test("while the checkpoint is written it is told how much has been", () => {
  const saving = state({ phase: "saving", elapsed: 3, written: 3_400_000, actions: [] });
  assert.deepEqual([describe(saving, 1).status, describe(saving, 1).clock], [
    "saving the checkpoint",
    "4.0 s, 3.4 MB written",
  ]);
});

test("a step with one attempt does not count", () => {
  const view = describe(state({ attempts: 1 }), 2);
  assert.equal(view.status, "running");
  assert.deepEqual(view.marks, []);
  assert.equal(view.clock, "2.0 s");
});

test("a step on a cluster says where it runs", () => {
  assert.equal(describe(state({ attempts: 1, on: "dask://host:1" }), 2).status, "running on dask://host:1");
});

test("the count-down runs by the page's own clock, and ends at zero", () => {
  const waiting = state({ phase: "waiting", left: 8, delay: 8, actions: ["retry", "cancel"] });
  assert.equal(describe(waiting, 0).clock, "next attempt in 8.0 s");
  assert.equal(describe(waiting, 6).progress, 0.75);
  assert.equal(describe(waiting, 99).clock, "next attempt in 0.0 s");
  assert.equal(describe(waiting, 99).progress, 1);
});

test("what is said aloud does not change with the clock", () => {
  const waiting = state({ phase: "waiting", left: 8, delay: 8 });
  assert.equal(describe(waiting, 0).status, describe(waiting, 5).status);
});

test("a durable call that waits counts down, and one that only the outside ends tells how long it has taken", () => {
  const pause = state({ phase: "sleeping", waits: "waiting: pause", left: 8, delay: 8, actions: ["go", "cancel"] });
  assert.deepEqual([describe(pause, 2).status, describe(pause, 2).clock], ["waiting: pause", "goes on in 6.0 s"]);
  assert.equal(describe(pause, 4).progress, 0.5);
  const callback = state({ phase: "sleeping", waits: "waiting for ok", elapsed: 3 });
  assert.deepEqual([describe(callback, 2).clock, describe(callback, 2).progress], ["5.0 s", null]);
});

test("marks tell failed, current and open attempts apart", () => {
  assert.deepEqual(describe(state({ attempt: 2 }), 0).marks, ["failed", "current", "open"]);
  assert.deepEqual(describe(state({ attempt: 2, phase: "waiting" }), 0).marks, ["failed", "failed", "open"]);
  assert.deepEqual(describe(state({ attempts: 100 }), 0).marks, []);
});

test("only buttons that this page knows are offered, in the kernel's order", () => {
  const view = describe(state({ phase: "refused", actions: ["again", "explode", "failed"] }), 0);
  assert.deepEqual(
    view.buttons.map((button) => button.label),
    [BUTTONS.again[0], BUTTONS.failed[0]],
  );
});

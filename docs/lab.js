// Labs on a page without a kernel: what a kernel has shown, move by move (docs/recording.py).

const NOTE =
  "On this page one control moves at a time; in JupyterLab, your own or one on Binder, all of them do.";
const FOLDER = document.currentScript.src.replace(/lab\.js.*/, "labs/");
const LABS = new Map();

globalThis.nvRecorded = (name, recording) => new RecordedLab(LABS.get(name), recording);

// The views, put together again: tags in sequence, with numbers in their places.
class Views {
  constructor([tags, sequences, rows]) {
    const last = [];
    this.tags = tags;
    this.sequences = sequences.map(([sequence, places]) => [sequence, inTurn(places)]);
    this.rows = rows.map(([nth, row]) => {
      last[nth] = row.split(",").map((number, i) => number || last[nth][i]);
      return [nth, last[nth]];
    });
  }

  at(view) {
    const [nth, numbers] = this.rows[view];
    const [sequence, places] = this.sequences[nth];
    const whole = sequence.map((tag) => this.tags[tag]).join("");
    let next = 0;
    return whole.replaceAll("¤", () => numbers[places[next++]]).split("§");
  }
}

// Places that come up for the first time, in turn, were left out.
function inTurn(places) {
  let most = -1;
  return places.split(",").map((place) => (place ? Number(place) : ++most));
}

class RecordedLab {
  constructor(lab, { rows, looks, states, hubs, moves, views }) {
    Object.assign(this, { lab, looks, states, hubs, moves, views: new Views(views) });
    this.inputs = rows.flat().map(([name, kind]) => new INPUTS[kind](name));
    for (const input of this.inputs) input.onMove = (place) => this.move(input, place);
    const inputs = this.inputs.values();
    const boxes = rows.map((row) => make("div", {}, ...row.map(() => inputs.next().value.box)));
    const isWhole = hubs.length === states.length;
    const note = isWhole ? [] : [make("p", {}, NOTE)];
    lab.querySelector(".nv-controls").replaceChildren(...boxes, ...note);
    [this.hub] = hubs;
    this.show(this.hub);
  }

  // Of a control: positions, disabled, hidden.
  look(state, nth) {
    const [look] = this.states[state][0][nth] ?? [];
    return this.looks[look] ?? [[], true, true];
  }

  // States by position; from a state that has none of its own, as from the hub before it.
  movesOf(input) {
    const own = this.moves[this.state]?.[input.name];
    if (own) return own;
    const nth = this.inputs.indexOf(input);
    const [now, before] = [this.state, this.hub].map((state) => this.look(state, nth)[0].join());
    return now === before ? this.moves[this.hub]?.[input.name] : undefined;
  }

  move(input, place) {
    const state = this.movesOf(input)[place];
    const [opening] = this.hubs;
    if (this.hubs.includes(state)) this.hub = state;
    else if (this.moves[opening][input.name]?.includes(state)) this.hub = opening;
    this.show(state);
  }

  show(state) {
    this.state = state;
    const [stands, view] = this.states[state];
    this.inputs.forEach((input, nth) => {
      const [labels, disabled, hidden] = this.look(state, nth);
      input.show(labels, stands[nth]?.[1] ?? 0, disabled || !this.movesOf(input), hidden);
    });
    this.views.at(view).forEach((html, nth) => {
      const old = this.lab.querySelector([".nv-words", ".nv-body"][nth]);
      const made = old.cloneNode();
      made.innerHTML = html;
      change(old, made);
    });
    requestAnimationFrame(() => reach(this.lab)); // docs/site.js
  }
}

// Controls: each has a box, shows a state, and calls onMove(place).

class Input {
  constructor(name) {
    this.name = name;
    this.label = make("span", {}, name);
    this.build();
    this.box.dataset.name = name;
  }

  show(labels, place, disabled, hidden) {
    this.box.hidden = hidden;
    if (hidden) return;
    if (labels.join() !== this.labels?.join()) {
      this.labels = labels;
      this.offer(labels);
    }
    this.stand(place, disabled);
  }

  offer() {}
}

class Range extends Input {
  build() {
    this.input = make("input", { type: "range", min: 0 });
    this.output = make("output", {});
    this.box = make("label", {}, this.label, this.input, this.output);
    this.input.addEventListener("input", () => this.onMove(Number(this.input.value)));
  }

  offer(labels) {
    this.input.max = labels.length - 1;
  }

  stand(place, disabled) {
    Object.assign(this.input, { value: place, disabled, ariaValueText: this.labels[place] });
    this.output.value = this.labels[place];
  }
}

class List extends Input {
  build() {
    this.input = make("select", {});
    this.box = make("label", {}, this.label, this.input);
    this.input.addEventListener("change", () => this.onMove(this.input.selectedIndex));
  }

  offer(labels) {
    this.input.replaceChildren(...labels.map((label) => make("option", {}, label)));
  }

  stand(place, disabled) {
    Object.assign(this.input, { selectedIndex: place, disabled });
  }
}

let groups = 0;

class Buttons extends Input {
  build() {
    this.group = `nv-choice-${groups++}`;
    this.choices = make("div", {});
    this.box = make("div", { role: "radiogroup", ariaLabel: this.name }, this.label, this.choices);
  }

  offer(labels) {
    this.inputs = labels.map((_, place) => {
      const input = make("input", { type: "radio", name: this.group });
      input.addEventListener("change", () => this.onMove(place));
      return input;
    });
    const choices = labels.map((label, i) => make("label", {}, this.inputs[i], label));
    this.choices.replaceChildren(...choices);
  }

  stand(place, disabled) {
    this.inputs[place].checked = true;
    for (const input of this.inputs) input.disabled = disabled;
  }
}

class Check extends Input {
  build() {
    this.input = make("input", { type: "checkbox" });
    this.box = make("label", { className: "nv-check" }, this.input, this.label);
    this.input.addEventListener("change", () => this.onMove(Number(this.input.checked)));
  }

  stand(place, disabled) {
    Object.assign(this.input, { checked: place === 1, disabled });
  }
}

class Button extends Input {
  build() {
    this.box = make("button", { type: "button" }, this.name);
    this.box.addEventListener("click", () => this.onMove(0));
  }

  stand(place, disabled) {
    this.box.disabled = disabled;
  }
}

// What no list of positions could hold.
class Text extends Input {
  build() {
    this.output = make("output", {});
    this.box = make("label", {}, this.label, this.output);
  }

  stand() {
    [this.output.value] = this.labels;
  }
}

const INPUTS = { range: Range, list: List, buttons: Buttons, check: Check, button: Button, text: Text };

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Make a node what another one is, and touch only what differs: the rest is not laid out anew, and
// what is scrolled stays so, with the tabindex by which it is reached.
function change(node, made) {
  const [names, wanted] = [node, made].map((it) => (it.getAttributeNames?.() ?? []).filter(isLasting));
  if (node.nodeName !== made.nodeName || names.join() !== wanted.join()) return node.replaceWith(made);
  if (node.nodeValue !== made.nodeValue) node.nodeValue = made.nodeValue;
  for (const name of wanted) {
    const value = made.getAttribute(name);
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  const children = [...made.childNodes];
  while (node.childNodes.length > children.length) node.lastChild.remove();
  children.forEach((child, nth) => {
    if (nth < node.childNodes.length) change(node.childNodes[nth], child);
    else node.append(child);
  });
}

const isLasting = (name) => name !== "tabindex";

// A recording is loaded when its lab comes near.
addEventListener("DOMContentLoaded", () => {
  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        const name = target.dataset.recording;
        LABS.set(name, target);
        document.head.append(make("script", { src: `${FOLDER}${name}.js` }));
      }
    },
    { rootMargin: "1000px" },
  );
  for (const lab of document.querySelectorAll("[data-recording]")) near.observe(lab);
});

// Questions on a page without a kernel, judged by what was recorded (docs/questions.py).

// A choice can be changed until its answer is unfolded; from then on it stays.
for (const asked of document.querySelectorAll(".nv-asked")) {
  const verdicts = document.getElementById(`nv-${asked.dataset.name}`);
  const fold = verdicts.closest("details");
  const [choices, said] = asked.querySelectorAll("fieldset, output");
  const open = Object.assign(document.createElement("button"), {
    type: "button",
    textContent: "Show what happens",
  });

  const judge = () => {
    const choice = choices.querySelector(":checked");
    if (!fold.open || !choice) return;
    choices.disabled = true;
    said.textContent = "Recorded.";
    for (const verdict of verdicts.children) verdict.hidden = verdict.dataset.answer !== choice.value;
  };

  said.textContent = "Choose one. Then look what happens, below.";
  choices.addEventListener("change", () => {
    said.replaceChildren("Recorded. ", open);
    judge();
  });
  open.addEventListener("click", () => {
    fold.open = true;
    judge();
    fold.querySelector("summary").focus();
  });
  fold.addEventListener("toggle", judge);
}

// A number is this answer from here to there; a text, but for its case, its spaces, and how axes
// are called.
function fits(given, answer) {
  if (typeof answer === "string") return plain(given) === plain(answer);
  const [isTuple, bounds] = answer;
  const numbers = numbersIn(given);
  const near = ([from, to], i) => from <= numbers[i] && numbers[i] <= to;
  return isTuple === given.includes(",") && numbers.length === bounds.length && bounds.every(near);
}

function plain(text) {
  const bare = text.replace(/^["']|["']$/g, "").replace(/\s+/g, " ").trim().toLowerCase();
  const names = [];
  for (const name of bare.match(/\w+/g) ?? []) if (!names.includes(name)) names.push(name);
  return bare.includes("->") ? bare.replace(/\w+/g, (name) => names.indexOf(name)) : bare;
}

function numbersIn(text) {
  const parts = text.replace(/[()[\]]/g, "").replace(/,\s*$/, "").replaceAll("−", "-").split(",");
  return parts.map((part) => {
    const [above, below = "1"] = part.split("/");
    return part.trim() ? Number(above) / Number(below) : NaN;
  });
}

for (const form of document.querySelectorAll(".nv-field")) {
  const [known, other, more] = JSON.parse(form.dataset.recorded);
  const [field, said] = form.querySelectorAll("input, output");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = field.value.trim();
    const [, verdict] = known.find(([answer]) => fits(given, answer)) ?? [];
    const [[right]] = known;
    const isOdd = Array.isArray(right) && numbersIn(given).length !== right[1].length;
    const asMany = isOdd ? more : other;
    const text = document.createElement("i");
    text.textContent = given;
    said.innerHTML = given ? (verdict ?? asMany.replaceAll("¤", () => text.innerHTML)) : "";
  });
}

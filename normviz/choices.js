// What is clicked is recorded; once it was judged, it stays.
function render({ model, el }) {
  el.innerHTML = model.get("page");
  const [choices, said] = el.querySelectorAll("fieldset, output");
  const show = () => {
    const recorded = model.get("recorded");
    for (const choice of choices.querySelectorAll("input")) choice.checked = choice.value === recorded;
    choices.disabled = model.get("judged");
    said.textContent = recorded ? "Recorded. Now run the next cell." : "Choose one, then run the next cell.";
  };
  choices.addEventListener("change", ({ target }) => {
    model.set("recorded", target.value);
    model.save_changes();
  });
  model.on("change", show);
  show();
}

export default { render };

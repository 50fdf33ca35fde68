// ipywidgets shows what a slider is called and where it stands, but tells its handle neither; and
// its labels have the tooltip "null", and break at no underscore.
function name(lab) {
  for (const label of lab.querySelectorAll(".widget-label")) {
    if (label.title === "null") label.removeAttribute("title");
    if (label.querySelector("wbr")) continue;
    const [first, ...others] = label.textContent.split(/(?<=_)/); // labels are all as wide
    if (others.length) {
      const rest = others.flatMap((part) => [document.createElement("wbr"), part]);
      label.replaceChildren(first, ...rest);
    }
  }
  for (const slider of lab.querySelectorAll(".widget-slider")) {
    const label = slider.querySelector(".widget-label").textContent;
    const readout = slider.querySelector(".widget-readout");
    const handle = slider.querySelector("[role=slider]");
    handle.setAttribute("aria-label", label);
    handle.setAttribute("aria-valuetext", readout.textContent);
    handle.setAttribute("data-lm-suppress-shortcuts", "true"); // arrow keys move it, and no cell
    readout.setAttribute("role", "textbox");
    readout.setAttribute("aria-label", `${label}, to type`);
  }
}

export default {
  render({ el }) {
    let observer;
    // The lab takes in what was rendered only afterwards.
    const waiting = setInterval(() => {
      const lab = el.parentElement;
      if (!lab) return;
      clearInterval(waiting);
      name(lab);
      observer = new MutationObserver(() => name(lab));
      observer.observe(lab, { childList: true, subtree: true });
    }, 50);
    return () => {
      clearInterval(waiting);
      observer?.disconnect();
    };
  },
};

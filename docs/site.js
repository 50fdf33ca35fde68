// What has to be scrolled sideways can be reached by Tab, to be scrolled from the keyboard.
// A picture has a style of its own; in most, Tab reaches what is drawn.
const BLOCKS = 'pre, .table-wrapper, .cell_output [style*="overflow-x"]:not(:has([tabindex="0"]))';

function reach(part) {
  for (const block of part.querySelectorAll(BLOCKS)) {
    const place = block.scrollWidth > block.clientWidth ? 0 : -1;
    if (block.tabIndex !== place) block.tabIndex = place;
  }
}

addEventListener("load", () => reach(document));
addEventListener("resize", () => reach(document));

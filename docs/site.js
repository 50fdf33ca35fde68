// What has to be scrolled sideways can be reached by Tab, to be scrolled from the keyboard.
function reach() {
  for (const block of document.querySelectorAll("pre, .table-wrapper")) {
    if (block.scrollWidth > block.clientWidth) block.tabIndex = 0;
    else block.removeAttribute("tabindex");
  }
}

addEventListener("load", reach);
addEventListener("resize", reach);

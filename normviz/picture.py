"""Picture: an SVG drawing and the same in words; and what can be drawn."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from normviz.reduction import refuse_mask
from normviz.svg import html_of


@dataclass(frozen=True, repr=False)
class Picture:
    """An SVG picture, and the same in words. A notebook shows the picture, ``print`` the words.

    Attributes:
        svg: the picture, a whole document.
        text: the same in words; its first line is the title.

    >>> from normviz import draw_slices
    >>> picture = draw_slices([[1, 3], [2, 6]], "n c -> n")
    >>> picture.svg[:4], picture.text.splitlines()[0]
    ('<svg', 'Mean over c, one per n')
    """

    svg: str
    text: str

    def _repr_html_(self) -> str:
        return html_of(self.svg)

    def __repr__(self) -> str:
        return self.text

    def save(self, path: str | Path) -> Path:
        """Write the picture to a file that ends in ``.svg`` or ``.html``, and return its path.

        Raises:
            ValueError: for any other ending.
        """
        path = Path(path)
        # On its own, the picture brings paper that follows the reader's light or dark setting.
        paper = "color-scheme:light dark;background:Canvas;color:CanvasText"
        page = self.svg.replace("<svg ", f'<svg style="{paper}" ', 1)
        if path.suffix == ".html":
            title = escape(self.text.partition("\n")[0])
            head = '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
            page = f"{head}<title>{title}</title>\n{page}\n</html>\n"
        elif path.suffix != ".svg":
            raise ValueError(f"path must end in .svg or .html: got {str(path)!r}.")
        path.write_text(page, encoding="utf-8")
        return path


def as_array(x) -> np.ndarray:
    """x as a NumPy array, whether it is a list, an array, or a tensor on any device.

    Raises:
        ValueError: if it holds no real numbers to draw.
    """
    refuse_mask(x)
    if hasattr(x, "detach"):  # a tensor
        x = _array_of(x.detach())
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"x must hold real numbers to be drawn: got dtype {x.dtype}.")
    if not x.size:
        raise ValueError(f"x must hold numbers to be drawn: got the shape {x.shape}.")
    return x


def _array_of(x) -> np.ndarray:
    """A tensor's numbers, whatever NumPy does not know of it: half precision, devices, layouts."""
    try:
        x = x.cpu().resolve_neg()
        return (x.float() if x.is_floating_point() and x.dtype.itemsize < 4 else x).numpy()
    except (RuntimeError, TypeError, NotImplementedError, AttributeError):
        would_do = {
            "x.unbind()[0]": x.is_nested,
            "x.dequantize()": x.is_quantized,
            "x.to_dense()": "strided" not in str(x.layout),
        }
        mends = [mend for mend, helps in would_do.items() if helps]
        raise ValueError(
            f"x must be a plain tensor of real numbers to be drawn: got {type(x).__name__} of "
            f"{x.dtype} on {x.device}{f'; {mends[0]} would do' if mends else ''}."
        ) from None

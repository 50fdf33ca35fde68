"""What all labs share: controls on top, what they mean in words, and what there is to see.

A lab reads its controls into a frozen setting, and a pure function makes a view of it: words and
pictures. An impossible setting shows the rule that it breaks.
"""

import re
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from html import escape, unescape
from inspect import signature
from pathlib import Path

import ipywidgets as widgets
from anywidget import AnyWidget
from IPython import get_ipython
from traitlets import TraitError

from normviz.picture import Picture
from normviz.refusals import RefusedInput
from normviz.words import five_digits

WITHOUT_KERNEL = (
    "<p><b>A lab stands here when a kernel runs:</b> open this lesson in JupyterLab, your own or "
    "one on Binder. Below is how it opens.</p>"
)

STYLES = re.compile("<style>.*?</style>", re.DOTALL)
LONGEST, LARGEST = 8, 1e6  # of a vector: how many numbers, and how large they may be
COLUMN = 174  # pixels that lab.css leaves beside a label in the narrowest column


class RuleBroken(ValueError):
    """A setting that a lab cannot show; it shows the rule instead."""


@dataclass(frozen=True, repr=False)
class View:
    """What a lab has to show, also without a kernel; ``print`` gives all of it in words."""

    words: str  # HTML
    pictures: tuple[Picture, ...] = ()

    @property
    def body(self) -> str:
        """The pictures, side by side where there is room, as HTML."""
        pictures = "".join(picture._repr_html_() for picture in self.pictures)
        return f'<div style="display:flex;flex-wrap:wrap;gap:0 24px">{pictures}</div>'

    def _repr_html_(self) -> str:
        return self.words + self.body

    def __repr__(self) -> str:
        words = self.words.replace("</th>", ": ")
        lines = re.split("<br>|</p>|</tr>|</caption>", words)
        said = (unescape(re.sub("<[^>]*>", "", line)).strip() for line in lines)
        return "\n".join([*filter(None, said), *(picture.text for picture in self.pictures)])


def rule(text: str) -> str:
    """A rule that the controls break, as HTML."""
    return f'<p role="alert"><b>Refused:</b> {escape(text)}</p>'


def check_choice(name: str, value, known) -> None:
    """Whether a setting is one of those that there are.

    Raises:
        RuleBroken: if not, with all that are known.
    """
    if value not in [*known]:
        raise RuleBroken(f"{name} must be one of {', '.join(map(str, known))}: got {value!r}.")


def buttons(
    description: str, options: Sequence, value, width: int = 80, most: int = 0
) -> widgets.ToggleButtons:
    """One of a few options, all in sight; each button is ``width`` pixels wide.

    Args:
        description: what stands beside them.
        options: as ipywidgets takes them.
        value: of the one that is chosen.
        width: of each.
        most: how many there can be, if there will be more.
    """
    made = widgets.ToggleButtons(options=options, value=value, description=description)
    made.style.button_width = f"{width}px"
    if max(most, len(options)) * (width + 4) > COLUMN:
        made.add_class("nv-wide")
    return made


def slider(text: str, value: float, least: float, most: float, step: float = 1, **more):
    """A slider of ints; of floats, if its step is a float."""
    kind = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    return kind(value, min=least, max=most, step=step, description=text, **more)


def eps_slider(eps: float) -> widgets.FloatLogSlider:
    """A slider of ε."""
    steps = {"min": -8, "max": 2, "step": 0.5}
    return widgets.FloatLogSlider(eps, **steps, description="ε", readout_format=".1e")


def one_of(*controls: widgets.Widget) -> widgets.Box:
    """Controls in the same place, of which one at most is to be seen."""
    box = widgets.Box(controls)
    box.add_class("nv-one")
    return box


def reveal(control: widgets.Widget, when: bool) -> None:
    """Whether a control is to be seen; it keeps its place, so that nothing else moves."""
    control.layout.visibility = "visible" if when else "hidden"


def labelled(options: Sequence) -> list[tuple[str, object]]:
    """The options of a list or of buttons, each with its label."""
    return [o if isinstance(o, tuple) else (str(o), o) for o in options]


def ends_of(slider: widgets.Widget) -> tuple[float, float]:
    """The least and the largest value of a slider."""
    ends = slider.min, slider.max
    is_log = isinstance(slider, widgets.FloatLogSlider)
    return tuple(slider.base**end for end in ends) if is_log else ends


def vector_field(description: str, numbers: Sequence[float]) -> widgets.Text:
    """A text field that holds a vector, as ``"1, 2, 6"``; ``numbers_in`` reads it."""
    return widgets.Text(", ".join(f"{n:.17g}" for n in numbers), description=description)


def numbers_in(control: widgets.Text) -> tuple[float, ...]:
    """The numbers in a text field.

    Raises:
        RuleBroken: if it holds anything else.
    """
    try:
        numbers = tuple(float(part) for part in control.value.split(","))
        if not all(abs(number) <= LARGEST for number in numbers):  # nor for nan
            raise ValueError
    except ValueError:
        raise RuleBroken(
            f"{control.description} must be numbers with commas between them, such as 1, 2, 6, and "
            f"none beyond {LARGEST:,.0f}: got {control.value!r}."
        ) from None
    return numbers


def vector_in_words(values: Sequence[float], decimals: int = 4) -> str:
    """A vector, rounded.

    >>> vector_in_words([1, -0.5, 2 / 3])
    '(1, −0.5, 0.6667)'
    """
    return f"({', '.join(five_digits(round(float(value), decimals)) for value in values)})"


def train_or_eval(training: bool) -> widgets.ToggleButtons:
    """The two modes of a layer; the value is its ``training``."""
    return buttons("mode", [("train", True), ("eval", False)], training)


def show_errors(callback):
    """A callback of a lab whose errors are shown in it; ipywidgets would swallow them."""

    @wraps(callback)
    def shown(lab, change=None):
        try:
            callback(lab, change)
        except Exception:
            if lab._settling:  # the outer callback would draw over it
                raise
            try:
                lab.read()
            except (RuleBroken, RefusedInput) as error:  # no wonder then
                lab.readout.value, lab.picture.value = rule(str(error)), ""
                return
            lab.readout.value = (
                '<p role="alert">This lab has stumbled over an error of its own:</p>'
            )
            lab.picture.value = f'<pre role="alert">{escape(traceback.format_exc())}</pre>'

    return shown


class SliderNames(AnyWidget):
    """Nothing to see: it names the sliders that stand beside it, and brings the labs' style."""

    _esm = Path(__file__).with_name("slider_names.js")
    _css = Path(__file__).with_name("lab.css")


class Lab(widgets.VBox):
    """Rows of controls above a readout and a picture, both of fixed height, so nothing jumps.

    A subclass makes a control for each field of its ``Setting``, hands them over in rows, and names
    the function that says what they mean.

    Args:
        rows: the controls from top to bottom; each is set and read by its ``value``.
        readout_height: in pixels.
        narrow_height: of the readout, where the window has 700 pixels; a quarter more, by default.
        picture_height: in pixels.
    """

    Setting: type  # a frozen dataclass
    view_of: Callable[..., View]  # from a setting, and from the plot if there is a ``_plot``
    _parts: Sequence[widgets.Widget] = ()  # all that it holds, also what is not to be seen

    def __init__(
        self,
        *rows: list[widgets.Widget],
        readout_height: int = 88,
        narrow_height: int = 0,
        picture_height: int = 560,
    ):
        self.readout, self.picture = (
            widgets.HTML(layout=widgets.Layout(height=f"{height}px", overflow="auto"))
            for height in (readout_height, picture_height)
        )
        # The same words in a narrower lab are higher; cqw are hundredths of its width.
        more = (narrow_height or 1.25 * readout_height) - readout_height
        higher = f"{more / (1000 - 584):.2f} * (1000px - 100cqw)"
        self.readout.layout.min_height = f"calc({readout_height}px + max(0px, {higher}))"
        boxes = [widgets.HBox(row) for row in rows]
        for box in boxes:
            box.add_class("nv-row")
        self.styles = widgets.HTML(layout=widgets.Layout(display="none"))
        super().__init__([*boxes, self.readout, self.picture, self.styles, SliderNames()])
        self.add_class("nv-lab")
        self._settling = False
        named = {f.name: getattr(self, f.name) for f in fields(self.Setting)}
        self._ends = {name: ends_of(c) for name, c in named.items() if hasattr(c, "max")}

    def _repr_mimebundle_(self, **options) -> dict:
        # What a page without a kernel shows in the lab's place.
        parts = WITHOUT_KERNEL, self.readout.value, self.styles.value, self.picture.value
        still = f"<div>{''.join(parts)}</div>"
        return super()._repr_mimebundle_(**options) | {"text/html": still}

    def read(self):
        """The setting that the controls hold.

        Raises:
            RuleBroken: if one holds what it did not offer when the lab was opened: ipywidgets lets
                a list have no choice, and anyone may widen a slider.
        """
        values = self.values()
        for name, value in values.items():
            control = getattr(self, name)
            if hasattr(control, "options"):
                check_choice(name, value, [choice for _, choice in labelled(control.options)])
            low, high = self._ends.get(name, (None, None))
            if low is not None and not low <= value <= high:
                raise RuleBroken(f"{name} must be from {low:g} to {high:g}: got {value!r}.")
        return self.Setting(**values)

    def values(self) -> dict[str, object]:
        """What stands in the control of each field of the setting; of a text, the numbers.

        Raises:
            RuleBroken: if a text is no vector.
        """
        held = {f.name: getattr(self, f.name) for f in fields(self.Setting)}
        is_text = {name: isinstance(control, widgets.Text) for name, control in held.items()}
        return {n: numbers_in(c) if is_text[n] else c.value for n, c in held.items()}

    def view(self) -> View:
        """What the controls stand for.

        Raises:
            RuleBroken, RefusedInput: naming the rule that they break.
        """
        plot = [self._plot] if hasattr(type(self), "_plot") else []
        return self.view_of(self.read(), *plot)

    def still(self) -> View:
        """The lab as it stands, without controls: for a reader who has no kernel."""
        try:
            return self.view()
        except (RuleBroken, RefusedInput) as error:
            return View(rule(str(error)))

    def close(self) -> None:
        """Take the lab off the page, and free what it holds; it cannot be shown again."""
        for part in self._parts:
            part.close()
        self._parts = ()
        self.picture.value = ""
        vars(self).pop("_plot", None)
        super().close()

    @contextmanager
    def settle(self):
        """While some controls follow another one, wait; then draw once."""
        outer, self._settling = self._settling, True
        try:
            yield
        finally:
            self._settling = outer
        self.draw()

    @show_errors
    def draw(self, _=None):
        """Show what the controls stand for now."""
        if not self._settling:
            view = self.still()
            body = view.body
            # For a style that is new, a browser lays out the whole page anew. A refusal has none.
            self.styles.value = "".join(dict.fromkeys(STYLES.findall(body))) or self.styles.value
            self.readout.value, self.picture.value = view.words, STYLES.sub("", body)

    def draw_on(self, *controls: widgets.Widget) -> None:
        """Draw now, and whenever one of these controls has a new value."""
        for control in controls:
            control.observe(self.draw, "value")
        self.draw()


OPENED: dict[str, tuple[str, list[Lab]]] = {}  # of a cell: its last run, and the labs of that


def close_last_run(opened: Lab) -> None:
    """Close the labs that the same cell opened when it ran before: the page shows them no more.

    Where nobody says which cell runs, as in a script, all labs stay.
    """
    shell = get_ipython()
    request = getattr(shell, "get_parent", dict)()
    if cell := request.get("metadata", {}).get("cellId"):
        run = request["header"]["msg_id"]
        last, labs = OPENED.get(cell, (run, []))
        if last != run:
            for old in labs:
                old.close()
                forget(old, shell)
            labs = []
        OPENED[cell] = run, [*labs, opened]


def forget(lab: Lab, shell) -> None:
    """Take a lab out of IPython's history, ``Out[7]`` and ``_7``, which would keep it for good."""
    for names in (shell.user_ns, shell.user_ns_hidden, shell.user_ns.get("Out", {})):
        for name in [name for name, held in names.items() if held is lab]:
            if str(name).lstrip("_").isdigit():
                del names[name]


def opener(lab: type[Lab], name: str) -> Callable[..., Lab]:
    """The public function that opens a lab: its arguments are the fields of the lab's setting.

    Widgets live as long as the kernel. So a cell that is run again closes the labs that it opened
    in its last run, with all their parts; labs of other cells, and others of this run, go on.

    Args:
        lab: whose docstring says what they mean.
        name: of the function.
    """

    def open_lab(*args, **kwargs) -> Lab:
        setting = lab.Setting(*args, **kwargs)
        known = {*widgets.widget._instances}
        try:
            opened = lab(setting)
        except TraitError as error:  # of a control, which says more than its name
            raise ValueError(f"{str(error).rstrip('.')}. Asked for was {setting}.") from None
        for field in fields(setting):  # a slider would go to its end instead
            asked, held = (getattr(one, field.name) for one in (setting, opened.read()))
            if asked != held:
                raise ValueError(
                    f"{field.name} must be what its control can hold: got {asked!r}, and it holds "
                    f"{held!r}."
                )
        made = widgets.widget._instances.items()
        opened._parts = [part for name, part in made if name not in known and part is not opened]
        close_last_run(opened)
        return opened

    open_lab.__name__ = open_lab.__qualname__ = name
    open_lab.__module__, open_lab.__doc__ = lab.__module__, lab.__doc__
    open_lab.__signature__ = signature(lab.Setting).replace(return_annotation=lab)
    return open_lab

"""A prediction: a choice to click before the cell that tells."""

from functools import cache
from html import escape
from pathlib import Path

from anywidget import AnyWidget
from IPython.display import display
from traitlets import Bool, Unicode

from normviz.judging import Commitment

BOX = "border:1px solid;border-radius:4px;width:fit-content"
ROW = (
    '<label style="display:block;padding:3px 0">'
    '<input type="radio" name="choice" value="{0}"> {0}</label>'
)


class Choices(AnyWidget, Commitment):
    """A choice of one; after ``commit`` it stays.

    Attributes:
        recorded: what was chosen; empty as long as nothing was.
        judged: whether it stays.
        page: all of it as HTML, to be clicked without a kernel, too.
    """

    _esm = Path(__file__).with_name("choices.js")
    recorded = Unicode().tag(sync=True)
    judged = Bool(False).tag(sync=True)
    page = Unicode().tag(sync=True)

    def __init__(self, choices: tuple[str, ...]):
        self.choices = choices
        rows = "".join(ROW.format(escape(choice)) for choice in choices)
        box = f'<fieldset style="{BOX}"><legend>Your prediction</legend>{rows}</fieldset>'
        # In a form of its own, so that no other choice on the page is in its group.
        super().__init__(page=f"<form>{box}<output></output></form>")

    def commit(self) -> str | None:
        """What is chosen, from now on for good; None, and still open, if nothing is."""
        self.judged = bool(self.recorded)
        return self.recorded or None

    def _repr_mimebundle_(self, **options) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**options)
        return data | {"text/plain": repr(self), "text/html": self.page}, metadata

    def __repr__(self) -> str:
        return f"Your prediction: {' | '.join(self.choices)}"


def predict(*choices: str) -> Choices:
    """Show radio buttons, to commit to one of several outcomes, for ``check`` in the next cell.

    Asked again with the same choices, it shows what was recorded: a click makes its cell the
    active one, which Shift + Enter then runs once more.

    Args:
        choices: two or more, no two of them alike.

    Raises:
        ValueError: for fewer than two, or for two that are alike.

    >>> looks = predict("it stays", "it moves")
    Your prediction: it stays | it moves
    >>> looks.recorded = "it moves"  # in a notebook: a click
    >>> looks.commit()
    'it moves'
    """
    if len({*choices}) < max(2, len(choices)):
        raise ValueError(f"choices must be two or more, no two of them alike: got {choices}.")
    asked = _asked(choices)
    display(asked)
    return asked


_asked = cache(Choices)

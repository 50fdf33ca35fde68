"""An outlier in a batch, and who is disturbed by it: in any layer, wherever it is put."""

import ipywidgets as widgets

from normviz.labs.lab import (
    Lab,
    View,
    buttons,
    one_of,
    opener,
    reveal,
    show_errors,
    train_or_eval,
)
from normviz.labs.outliers import (
    LARGEST,
    NAMES,
    SHOWN,
    SIZES,
    TRACKED,
    WINDOWS,
    Disturbance,
    RelativesSetting,
    axes_of,
    last_axes,
)
from normviz.labs.shaping import LONGEST, PlaceSliders, ShapeSliders, needs


class RelativesLab(Lab):
    """An explorer: an outlier is added to a batch. Who is disturbed by it?

    The batch holds small integers, which stay the same while controls are moved. Its layer has been
    trained before: where it has running statistics, they are 0 and 30, those of such integers.
    Each cell of the picture shows how far its output moves when the outlier comes; the outlier's
    own is ringed. Each control can be set and read by name: ``layer``, ``axes``, ``groups``,
    ``normalized_shape``, ``shape``, ``outlier``, ``size``, ``training`` and ``show`` have a
    ``value``.

    Args:
        layer: one of normviz, ``"InstanceNorm2d tracked"`` (or 1d, 3d) for one with running
            statistics, or ``"LocalResponseNorm"``, that of torch.nn with windows of 3 channels and
            ``alpha=1``.
        shape: of the batch, sizes from 1 to 8; by default (4, 4, 2, 2), or what the layer takes.
        outlier: the place of the number that grows; by default the first one.
        size: what is added to it, −100 to 100.
        groups: of GroupNorm, 1 to 8.
        training: whether the layer is in training.
        axes: what they are, such as ``"n c h w"``; by default as many as ``shape`` has.
        normalized_shape: of LayerNorm and RMSNorm, how many of the last axes it names; by default
            those of a sample, or of a token.
        show: in the cells: ``"change"``, or the disturbed ``"input"`` or ``"output"``.

    Raises:
        ValueError: for any other layer, word or number. Where a layer refuses the batch, the rule
            is shown.

    >>> lab = relatives_lab("LayerNorm")
    >>> "Batch mates are <b>left alone</b>" in lab.readout.value
    True
    """

    Setting = RelativesSetting

    def __init__(self, setting: RelativesSetting):
        self.layer = widgets.Dropdown(options=NAMES, value=setting.layer, description="layer")
        self.axes = widgets.Dropdown(description="axes")
        self.groups = widgets.IntSlider(setting.groups, min=1, max=LONGEST, description="groups")
        self.normalized_shape = widgets.Dropdown(description="normalized_shape")
        self.shape, self.outlier = ShapeSliders(SIZES), PlaceSliders()
        self.size = widgets.FloatSlider(
            setting.size, min=-LARGEST, max=LARGEST, step=1, description="outlier: plus"
        )
        self.training = train_or_eval(setting.training)
        self.show = buttons("numbers", [*SHOWN], setting.show, width=90)
        super().__init__(
            [self.layer, self.axes, one_of(self.normalized_shape, self.groups)],
            [self.shape],
            [self.outlier],
            [self.size, self.training, self.show],
            readout_height=150,
            picture_height=480,
        )
        with self.settle():
            self._choose_layer()
            self.axes.value = setting.axes
            self._choose_axes()
            self.shape.value = setting.shape
            self._choose_shape()
            self.outlier.value = setting.outlier
            self.normalized_shape.value = setting.normalized_shape
            self.layer.observe(self._choose_layer, "value")
            self.axes.observe(self._choose_axes, "value")
            self.shape.observe(self._choose_shape, "value")
            self.draw_on(
                self.outlier,
                self.size,
                self.groups,
                self.normalized_shape,
                self.training,
                self.show,
            )

    @show_errors
    def _choose_layer(self, change=None):
        with self.settle():
            self.axes.options = [
                (f"({', '.join(axes.upper().split())})", axes) for axes in axes_of(self.layer.value)
            ]
            self.axes.index = 0
            self._choose_axes()
            channels, groups = self.shape.sliders["c"], self.groups
            needs_groups = self._shows(groups, "num_groups")
            if change and needs_groups and channels.value % groups.value:
                groups.value = 2
                channels.value = 4

    @show_errors
    def _choose_axes(self, _=None):
        with self.settle():
            names = self.axes.value.upper().split()
            self.normalized_shape.options = [
                (f"({', '.join(names[-last:])})", last) for last in range(1, len(names))
            ]
            self.normalized_shape.value = last_axes(self.axes.value)
            self._shows(self.normalized_shape, "normalized_shape")
            self.shape.ask_for(self.axes.value)
            self._choose_shape()

    @show_errors
    def _choose_shape(self, _=None):
        with self.settle():
            self.outlier.ask_for(self.axes.value, self.shape.value)

    def _shows(self, control: widgets.Widget, argument: str) -> bool:
        """Whether the layer has this argument; its control is to be seen only then."""
        name = self.layer.value.removesuffix(TRACKED)
        has = name != WINDOWS and needs(name, argument)
        reveal(control, has)
        return has

    def view(self) -> View:
        """Who is disturbed by the outlier."""
        disturbance = Disturbance(self.read())
        picture = disturbance.picture()
        at = ",".join(map(str, disturbance.at))
        drawn = f'data-index="{at}"' in picture.svg
        return View(disturbance.words(drawn=drawn), (picture,))


relatives_lab = opener(RelativesLab, "relatives_lab")

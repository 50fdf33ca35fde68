"""An outlier in a batch, and who is disturbed by it: in any layer, wherever it is put."""

from normviz.labs.lab import View, buttons, opener, show_errors, slider, train_or_eval
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
from normviz.labs.shaping import LayerLab, PlaceSliders, needs


class RelativesLab(LayerLab):
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
        row, self.outlier = self._controls(setting, NAMES, SIZES), PlaceSliders()
        self.size = slider("outlier: plus", setting.size, -LARGEST, LARGEST, 1.0)
        self.training = train_or_eval(setting.training)
        self.show = buttons("numbers", [*SHOWN], setting.show, width=90)
        super().__init__(
            row,
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

    def _axes_of(self, name: str) -> list[str]:
        return axes_of(name)

    def _last_axes(self) -> int:
        return last_axes(self.axes.value)

    def _has(self, argument: str) -> bool:
        name = self.layer.value.removesuffix(TRACKED)
        return name != WINDOWS and needs(name, argument)

    @show_errors
    def _choose_axes(self, _=None):
        with self.settle():
            super()._choose_axes()
            self._choose_shape()

    @show_errors
    def _choose_shape(self, _=None):
        with self.settle():
            self.outlier.ask_for(self.axes.value, self.shape.value)

    def view(self) -> View:
        """Who is disturbed by the outlier."""
        disturbance = Disturbance(self.read())
        picture = disturbance.picture()
        at = ",".join(map(str, disturbance.at))
        drawn = f'data-index="{at}"' in picture.svg
        return View(disturbance.words(drawn=drawn), (picture,))


relatives_lab = opener(RelativesLab, "relatives_lab")

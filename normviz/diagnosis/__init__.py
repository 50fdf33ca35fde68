"""The findings of ``diagnose``, one class each. The docstring of a class is its page."""

from normviz.diagnosis.numbers import HalfPrecision, NegativeVariance, NotFinite
from normviz.diagnosis.running import FarStatistics, Lagging, MomentumNone, NeverFed
from normviz.diagnosis.statistics import (
    ConstantChannel,
    Epsilon,
    FewNumbers,
    Padding,
    SwappedAxes,
    ZeroWeight,
)
from normviz.diagnosis.switches import (
    BatchMates,
    FrozenUntilTrain,
    HalfFrozen,
    IdleBias,
    LateSwitch,
    NoGroup,
    Reused,
)

# In this order they are reported: what breaks a model first, causes before effects.
FINDINGS = (
    *(NotFinite, NegativeVariance, HalfPrecision, FewNumbers, BatchMates, NeverFed, Lagging),
    *(Reused, LateSwitch, MomentumNone, HalfFrozen, FrozenUntilTrain, FarStatistics, NoGroup),
    *(SwappedAxes, Padding, ConstantChannel, Epsilon, ZeroWeight, IdleBias),
)

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

FINDINGS = (  # in this order they are reported: what breaks a model first
    NotFinite,
    NegativeVariance,
    HalfPrecision,
    FewNumbers,
    BatchMates,
    NeverFed,
    Lagging,
    FarStatistics,
    MomentumNone,
    HalfFrozen,
    FrozenUntilTrain,
    LateSwitch,
    Reused,
    NoGroup,
    SwappedAxes,
    Padding,
    ConstantChannel,
    Epsilon,
    ZeroWeight,
    IdleBias,
)

"""Layers in programs that others rewrite: exported, and compiled."""

import pytest
import torch
from test_conformance import of_torch, random_input, twins

# The 1d and 3d layers are those of 2d with another check of the input.
FAMILIES = {case[0]: case for case in of_torch if case[0][-2:] not in ("1d", "3d")}


@pytest.mark.parametrize("case", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.filterwarnings("ignore")  # Dynamo's, of a cache and of gradients across graphs
def test_exported_and_compiled_layers_give_the_same(case, training):
    ours, again, theirs = (twins(case)[0].train(training) for _ in range(3))
    again.load_state_dict(ours.state_dict()), theirs.load_state_dict(ours.state_dict())
    x = random_input(case[2])
    exported = torch.export.export(again, (x,)).module()
    compiled = torch.compile(theirs, backend="eager")
    for _ in range(2):
        y = ours(x)
        torch.testing.assert_close(exported(x), y)
        torch.testing.assert_close(compiled(x), y)
    torch.testing.assert_close(theirs.state_dict(), ours.state_dict())
    (exported_state, own) = exported.state_dict(), ours.state_dict()
    torch.testing.assert_close({name: exported_state[name] for name in own}, own)

"""Layers in programs that others rewrite: exported, and compiled."""

import pytest
import torch
from test_conformance import every_torch_layer, random_input, twins


@every_torch_layer
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

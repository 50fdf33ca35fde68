"""What the lessons teach: for each claim and each question of learners, a cell that runs it."""

import json
from functools import cache
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"

# The claims of five articles on BatchNorm and LayerNorm, and what learners ask in forums. For each
# one: the lesson, the cell, and a piece of its code that makes the point.
TAUGHT = """
A1: mean, variance, weight and bias are one per channel
    01 affine-fresh: nn.BatchNorm2d(2).weight.shape
    01 table-means: mean(axis=0)
A2: five tensors are kept; three of them are buffers, not learned, and saved
    03 learned-or-kept: state_dict()
    03 learned-or-kept: named_buffers()
    03 port: load_state_dict
A3: which shapes BatchNorm1d and 2d take; the output has the shape of the input
    01 sequence-of-one: nn.BatchNorm1d(5)(people)
    01 images-referee: bn(x)[:, 0, 0]
A4: running values start at 0 and 1; momentum is the weight of the new batch
    01 fresh-layer: fresh.running_mean
    03 rule-by-hand: (1 - momentum) * old + momentum * batch
    03 one-batch: momentum=0.25
A5: num_batches_tracked matters only when momentum is None: the plain average
    03 three-settings: (0.0, 1.0, None)
    03 counter-number: fill_(99)
A6: eval keeps the running values of the last training forward
    03 eval-stops: layer.eval()
    05 eval-buffers: bn(100 * batch)
A7: channel 0 has mean -0.19192 and variance 1.45355 or 1.39540
    01 mistake-referee: channel0_var_unbiased
A8, wrong twice: corrected variance, and ε outside the root
    01 mistake-hand-check: correction=1
    01 mistake-which: only_outside
    04 layernorm-std: row.std(-1) + 1e-6
A9, wrong: a saved name is no copy
    01 alias-wrong: before = bn.running_mean  #
    01 alias-right: .clone()
    03 log-wrong: log.append(
A10, wrong reason: Bessel's correction makes up for values at the edge
    04 folk-true-mean: both_edges
    04 folk-coin: coins[both_edges]
    04 proof-end: own.mean()
B1: train() and eval() set `training`, which BatchNorm and Dropout obey
    05 dropout-obeys: dropout.eval()
B2: training, tracked: the batch normalizes, the running statistics move
    05 four-answers-tracked: four_answers(bn.train())
B3: training, untracked: the batch normalizes, nothing is kept
    05 untracked-training: four_answers(untracked.train())
B4: eval, tracked: the running statistics normalize and stay
    05 four-answers-tracked: four_answers(bn.eval())
B5: eval, untracked: the batch normalizes; mates matter; one value per channel raises
    05 untracked-eval: four_answers(untracked.eval())
    05 untracked-one-value: untracked.eval()(batch[:1])
B6: affine=False: weight 1 and bias 0, not learned
    05 affine-false: plain.parameters()
B7: the running statistics move in forward, not in step, under no_grad too
    03 whole-step-run: optimizer.step()
    03 three-looks: torch.no_grad()
    05 no-grad-moves: torch.no_grad()
B8: a loaded model that tests worse: look at these flags first
    05 wrong-mode: load()
    05 look-at-the-flags: layer.track_running_stats
B9: accumulation is no bigger batch; freezing; dropout shifts the variance
    05 accumulation-buffers: in_halves.running_mean
    05 freeze-right: freeze_batchnorm(model)
    05 dropout-eval: dropout_first.eval()(numbers).var()
B10: two more states: the flag set to False after construction
    05 late-training: four_answers(late.train())
    05 late-wrong-idea: four_answers(late.eval())
C1: (N, C, L) pools N and L: (5, 3, 10) has three means of 50
    01 sequence-longer: (5, 3, 10)
C2: (N, L) is (N, L, 1): (4, 5) has five means of four
    01 table-means: mean(axis=0)
    01 sequence-of-one: people[:, :, None]
C3: images pool N, H and W, volumes D as well
    01 images-real-picture: torch.randn(5, 3, 100, 120)
    01 volumes: dim=(0, 2, 3, 4)
C4: the worked sums
    01 sequence-mean: 0, 1, 2, 12, 13, 14
    01 sequence-article: published("C2")
    01 sequence-first: (0 - mean)
    01 images-means: mean(axis=(0, 2, 3))
C5: biased normalizes, unbiased is stored: 3.675
    01 which-normalizes: sqrt(unbiased)
    01 running-by-hand: 0.1 * unbiased
    01 running-by-torch: article.running_var
C6: LayerNorm keeps nothing; normalized_shape is an int or a list of the last sizes
    02 state: nn.LayerNorm(4).state_dict()
    02 int-is-list: nn.LayerNorm([4])
    02 sizes-not-axes: nn.LayerNorm([2, 3])
C7: LayerNorm(4) on (3, 4), and LayerNorm([3, 4]) on (N, C, 3, 4)
    02 rows-referee: published("C4")
    02 slices-first: published("C5")
C8: LayerNorm's weight has normalized_shape; every slice meets it once
    02 weight-shape: layer.weight.shape
    02 weight-by-weight: by="weight"
C9: the affine step turns N(0, 1) into N(bias, weight²); the input need not be normal
    02 affine-effect: correction=0
    02 affine-histograms: draw_histograms
D1, wrong word: γx + β is affine, not linear
    06 affine-step: gap(scale_and_shift, 1, 1)
D2: normalizing is not linear: N(ax) is sign(a)·N(x), with ε only nearly; sums fail too
    06 scale-sign: .sign() * norm(x1)
    06 eps-exact: a**2 * 14 / 3 + 1e-5
    06 sum-gap: gap(twin, 1, 1)
D3: in eval BatchNorm is affine, and folds into the convolution before it
    06 eval-referee: slope * x + shift
    06 fold-check: assert_close(folded(images), bn(conv(images)))
    06 saved-numbers: count_numbers(folded)
D4: the classic figure
    02 family-cubes: draw_cubes
D5: running_mean stands for E[x], running_var for Var[x]
    03 stand-for-close: abs(layer.running_mean - 5) < 0.5
D6: the class tree
    02 class-tree: __mro__
E1: one value by hand
    01 affine-by-hand: 0.8681
    01 affine-referee: first_output
Q1: biased or unbiased: which, where, why both, and why does LayerNorm divide by m?
    04 two-jobs: layer.running_var
    04 store-biased: running_var * 2 / 3
    04 layernorm-scale: correction=correction
Q2: is momentum 0.1 the 0.9 of Keras and ONNX? What does Flax store?
    03 other-words: momentum=0.9
    03 other-variance: a.var()
    03 other-eps: (1e-3, 1e-5)
Q3: what is momentum=None? It misses the variance between batches
    03 three-settings: None
    03 sorted-none: momentum=None
    03 sorted-within: within + between
Q4: why is eval so much worse, and a batch of 1 unlike a batch of 32?
    05 too-few-steps: measure(model)
    05 one-or-32: new_days[:32]
    05 same-batch-twice: nn.Dropout(0.5)
    05 start-and-lag: without_start(again)
    05 more-batches: update_bn(days.split(32), renewed)
Q5: more than 1 value per channel: why, and why in eval? Why zeros from GroupNorm?
    04 one-training: (1, 3)
    04 one-eval-untracked: track_running_stats=False
    04 group-of-one: nn.GroupNorm(3, 3)
Q6: how do I freeze BatchNorm, and why did requires_grad=False not do it?
    05 freeze: layer.requires_grad_(False)
    05 freeze-without-gradient: requires_grad_(False)
    05 freeze-undone: model.train()
Q7: which axes does LayerNorm(C) pool? Is GroupNorm(1, C) LayerNorm?
    02 tokens: nn.LayerNorm(4)
    02 groupnorm-statistics: nn.GroupNorm(1, 3)
    02 groupnorm-is-not-token-norm: torch.allclose
Q8: (N, C, L) or (N, L, C)? And if both fit?
    02 batchnorm-refused: nn.BatchNorm1d(4), tokens
    02 batchnorm-silent: square_tokens
Q9: do padded positions pollute the statistics?
    05 padding-more: pad(padded
    05 padding-cured: (positions)
Q10: is accumulation a bigger batch? Does checkpointing update twice?
    05 accumulation-outputs: large[:4], large[4:]
    05 checkpoint-twice: use_reentrant=False
    05 checkpoint-momentum: 1 - 0.9**0.5
    09 accumulate: [[1.0], [5.0]], [[3.0], [7.0]]
    09 checkpoints: checkpoint(part, x
Q11: what do several workers do: whose statistics? What is SyncBatchNorm?
    05 workers: worker.running_mean
    05 workers-synced: within + between
    05 workers-convert: SyncBatchNorm.convert
    09 broadcast: load_state_dict(workers[0].state_dict())
    09 run: together(work, 2, [synced, plain], parts)
    09 synced-agree: assert_close(buffers, dict(referee.named_buffers()))
    09 plain-differs: far(of_worker, gradients)
Q12: a convolution's bias before BatchNorm is pointless; folding works only in eval
    06 bias-training: raised(images)
    06 fold-training: two_layers(images)
    08 idle: bias.grad.abs().max()
    08 vanish-two-sums: d.sum(dim=(0, 2, 3))
Q13: why not detach μ and σ²?
    06 learn-detached: learn_bias(detached)
    06 detached-gradient: gradient(detached)
    08 detached-table: mean.detach()
    08 detached-scale: scale_after(steps, "var")
a bias before a norm is idle exactly when it is constant on each slice
    08 idle: idle = nn.BatchNorm1d(4), nn.InstanceNorm1d(4), nn.GroupNorm(4, 4)
    08 idle: busy = nn.LayerNorm([4, 5]), nn.GroupNorm(2, 4), nn.RMSNorm([4, 5])
    08 idle: nn.BatchNorm1d(4).eval()
Q14: is the γx + β part enough to call BatchNorm linear?
    06 not-enough: gap(layer, 1, 1)
Q15: does no_grad mean eval?
    05 no-grad-moves: torch.no_grad()
    05 eval-has-gradients: backward()
Q16: why two passes, when E[x²] − E[x]² takes one? And are two passes exact?
    04 shortcut: by_squares(x)
    04 exactness: two_passes(x.double())
    04 exactness: two_passes(x - x.mean())
SyncBatchNorm gathers counts, so unequal parts are right; alone, or in eval, BatchNorm
    09 join: counts * (means - mean) ** 2
    09 join-check: Moments.join(
    09 ours: normviz.SyncBatchNorm(2), nn.SyncBatchNorm(2)
    09 refused: nn.SyncBatchNorm(2)(batch)
    09 refused: nn.SyncBatchNorm(2).eval()(batch)
a naive SyncBatchNorm weighs workers equally, and stores the biased variance
    09 naive: naive([1], [3, 5, 7])
    09 naive-stored: 0.9 + 0.1 * biased
convert_sync_batchnorm and update_bn ask for _BatchNorm, and pass InstanceNorm by
    09 convert: convert_sync_batchnorm(make_zoo())
    07 tree-update: update_bn(batches
what pools each sample alone needs no other worker
    09 others: nn.GroupNorm(2, 4), nn.LayerNorm(5), nn.InstanceNorm1d(4)
R1: four choices: what is pooled, what is done, what shares a weight, what is kept
    07 plan: plan.running
    07 which-table: plan.statistic
R2: InstanceNorm: per n and c, biased; nothing learned or kept by default
    07 instance-formula: a.var(2, keepdims=True)
    07 instance-referee: nn.InstanceNorm1d(2).state_dict()
R2: tracked, it stores the average of unbiased variances; the counter never moves
    07 instance-tracked: tracked.num_batches_tracked
    07 instance-tracked-rule: x.var(2, correction=1).mean(0)
    07 instance-none: momentum=None
R2: in eval, tracked InstanceNorm is BatchNorm with those values
    07 instance-eval: tracked.eval()(loud)
    07 instance-is-batch: assert_close(tracked(loud), twin(loud))
R2: (C, L) is one sample; one position is refused, in eval too unless tracked
    07 instance-shapes: nn.InstanceNorm1d(2)(x[0])
    07 instance-shapes: layer(x[:, :, :1])
R3: GroupNorm: per n and group of neighbours, biased; weights per channel
    07 group-formula: split.var(2, correction=0
    07 group-referee: nn.GroupNorm(2, 4)(four)
    07 group-ends: nn.GroupNorm(1, 4).weight.shape
R3: torch takes (groups, channels), timm (channels, groups)
    07 group-order: nn.GroupNorm(64, 32)
R4: RMSNorm: the mean square, no mean, no bias
    07 rms-formula: ten.square().mean() + 1e-6
    07 rms-referee: nn.RMSNorm(10).state_dict()
    07 rms-shift: nn.RMSNorm(3)(centred + 100)
R4: eps=None is float32's, for half precision too; float64 has its own
    07 rms-eps: torch.finfo(torch.bfloat16).eps
    07 rms-eps-double: dtype=torch.float64
R4: weight before or after rounding; Gemma's 1 + w
    07 rms-round: weight_first != rounding_first
    07 rms-gemma: 1 + stored
R5: WeightNorm: g starts at the norm, one per output; g and v in the state_dict
    07 weight-start: print(normed(some))
    07 weight-parts: parametrizations.weight.original0
    07 weight-referee: g * v / v.norm(dim=1, keepdim=True)
R5: dim=-1 is the whole tensor; zeros give nan; Flax starts g at 1
    07 weight-traps: dim=-1
    07 weight-traps: weight_norm(zero)
    07 weight-traps: 1e-12
R6: SwitchableNorm mixes three means and variances by softmax, all shares equal at first
    07 switch-formula: for dim in dims.values()) / 3
    07 switch-learn: model.mean_weight.softmax(0)
R6: the layer's variance follows from the instances', joined without losing digits
    07 switch-join: own_mean.var(1, correction=0)
    07 switch-digits: own_mean**2
R6: with momentum 1 eval repeats; the authors' code: unbiased, old momentum, from 0
    07 switch-repeats: again.eval()(images)
    07 switch-variance: squares / (images[0, 0].numel() - correction)
    07 switch-published: 0.9 * 0 + 0.1 * batch_variance(images, 1)
R7: FRN: mean square per n and c, then max(y, τ); the learned ε of a single number
    07 frn-formula: y.clamp(min=0)
    07 frn-pixel: threshold=False
    07 frn-eps: 1e-6 + 1e-4
R7: timm's ε is 1e-5; TensorFlow Addons had one τ per position
    07 frn-eps: (1e-5, False)
    07 frn-tau: torch.zeros(8, 16, 16)
R8: MABN: the average of the last K mean squares, from the batch after the warm-up
    07 mabn-by-hand: square if t <= 2 else sum(memory) / 2
    07 mabn-layer: assert_close(step.var
    07 mabn-warm-up: warmup=4
R8: running_var from 1; r, held at 1 for 1000 batches, then between 1/5 and 5
    07 mabn-running: 0.98 * running + 0.02 * square
    07 mabn-r: step.told.factor
    07 mabn-eval: mabn.eval()
R8: two statistics of the backward pass, of which MABN keeps mean(g·z)
    07 mabn-back: draw_slices(g * z, "n c h w -> c"
    07 mabn-back-formula: (g - z * gz) / std
R8: it stands behind weights whose mean per output is subtracted
    07 mabn-conv: conv.weight.mean((1, 2, 3), keepdim=True)
R10: FrozenBatchNorm: four buffers, BatchNorm in eval
    07 frozen: self.register_buffer(
    07 frozen-compare: frozen.train()(photos)
R10: LocalResponseNorm: windows overlap, so no partition exists
    07 local-partition: plan_of(local
    07 local-picture: normviz.draw_jacobian(local
R11: the class tree; update_bn and convert_sync_batchnorm ask for _BatchNorm
    07 tree: __mro__[1]
    07 tree-isinstance: isinstance(layer, _BatchNorm)
    07 tree-update: update_bn(
    07 tree-sync: convert_sync_batchnorm(pair)
R13: published values
    07 rms-formula: 0.18731716, 1.6858544
    07 eps-published-referee: -0.41386, 0.29307, 1, 1.70693, 2.41386
    07 group-published: 0.904, 0.904, -0.301, -1.507
R14: ε by default, and where the channels stand
    07 eps-table: "Keras RMS": 1e-6
    07 channels-last: .permute(0, 2, 3, 1)
what a layer pools shows when one number moves; centred and divided, when all do
    10 moved: other[place] += 1
    10 shift: change(box_3, 3 * x)
    10 box-2-times: x.softmax(1)
an unbiased variance is no weight: it depends on the count
    10 box-1-samples: torch.randn(6, 4, 3)
in eval, BatchNorm is one slope and shift per channel; looking in training moves it
    10 box-4: box_4(x + 1) - box_4(x)
    10 box-4-moved: box_4.eval()(x) - kept
ε outside the root: nan gradients at a variance of 0 (field report 43)
    10 box-6: small / (small + 1e-3)
    10 box-6-gradient: padding.grad
    10 box-6-rows: row.std(correction=0)
training or test data, training or eval mode: overfitting, or the statistics
    10 four: deepcopy(model).train(mode)
    10 four: four("crammed", crammed, few
model.train() thaws a frozen BatchNorm
    10 frozen-changed: torch.equal(tensor, before[name])
    10 frozen-diagnosed: diagnose(patient.train(), away[0])
    10 frozen-cure: super().train(False)
an average of parameters has fresh statistics (field report 7)
    10 average: average.parameters(), model.parameters()
    10 average-cure: update_bn(
    10 average-cure: copied.buffers(), model.buffers()
one norm for two domains fits neither in eval
    10 domains-eval: both.eval()
    10 domains-without: diagnose(both, home[0])
    10 domains-update: fed_by(home[0], away[0])
    10 domains-update: fed_by(away[0]), *away
    10 domains-cure: self.norms[domain]
mean and variance swapped in a port: a negative variance, nan in eval (20, 58)
    10 file-root: (bn.running_var + bn.eps).sqrt()
a norm of one's own class is found by moving numbers, in a model, too
    10 own-layer: normviz.explain(Mine()
    10 own-layer-diagnosed: diagnose(nn.Sequential(nn.Conv2d(3, 8, 3), Mine())
diagnose in a shell: weights are loaded, and a finding may be ignored
    10 shell: load_state_dict(torch.load(
    10 shell-run: "--ignore", "idle-bias"
"""


def cells_taught():
    """Each claim, with the lesson, the cell, and the piece of its code."""
    claim = ""
    for line in TAUGHT.strip().splitlines():
        if line.startswith("    "):
            cell, point = line.strip().split(": ", 1)
            yield claim, *cell.split(), point
        else:
            claim = line


CELLS = [*cells_taught()]


@cache
def code_cells(number):
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {c["id"]: "".join(c["source"]) for c in cells if c["cell_type"] == "code"}


@pytest.mark.parametrize(("claim", "lesson", "cell", "point"), CELLS)
def test_a_cell_runs_and_shows_it(claim, lesson, cell, point):
    assert point in code_cells(lesson)[cell], f"{claim}: who shows it now?"


def test_every_lesson_teaches_something_of_it():
    lessons = {path.name[:2] for path in NOTEBOOKS.glob("*.ipynb")} - {"00"}
    assert {lesson for _, lesson, *_ in CELLS} == lessons

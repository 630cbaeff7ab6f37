"""The schedule `multiplied`, weight decay on everything, and how both are asked for on the command line."""

import sys

import pytest
import torch
from torch import nn

from heedful import InputError, cli
from heedful.train.classify import Classifier
from heedful.train.module import Training, rate_factor
from heedful.train.recipe import compare_recipe
from heedful.train.run import Machine, execute, runs_of
from heedful.train.settings import Settings, check, shrunk

BIRDS = Settings(
    schedule="multiplied", milestones=(30, 60, *range(90, 301, 30)), factors=(2, 2, *8 * [0.5]), epochs=320
)


def rates(settings):
    return [rate_factor(settings, epoch + part) for epoch in range(settings.epochs) for part in (0, 0.9)]


def test_one_factor_is_for_every_milestone():
    settings = Settings(schedule="multiplied", milestones=tuple(range(25, 300, 25)), factors=(0.5,), epochs=300)
    check(settings)
    assert rates(settings) == [0.5 ** (epoch // 25) for epoch in range(300) for _ in range(2)]


def test_every_milestone_has_its_factor():
    check(BIRDS)
    by_hand = [1] * 30 + [2] * 30 + [4] * 30 + [2] * 30 + [1] * 30
    by_hand += [1 / 2**fall for fall in range(1, 6) for _ in range(30)] + [1 / 64] * 20
    assert rates(BIRDS) == [rate for rate in by_hand for _ in range(2)]


def test_shrunk_milestones_that_fall_together_multiply_their_factors():
    small = shrunk(BIRDS, 0.1)
    assert (small.epochs, small.milestones, small.factors) == (32, tuple(range(3, 31, 3)), BIRDS.factors)
    smaller = shrunk(BIRDS, 0.025)  # 0.75, 1.5, 2.25, 3, 3.75, 4.5, 5.25, 6, 6.75, 7.5
    assert smaller.milestones == (1, 2, 3, 4, 5, 6, 7, 8)
    assert smaller.factors == (2, 2 * 0.5, 0.5, 0.5 * 0.5, 0.5, 0.5, 0.5, 0.5)
    smallest = shrunk(BIRDS, 0.001)
    assert (smallest.milestones, smallest.factors) == ((1,), (2**2 * 0.5**8,))
    for settings in (small, smaller, smallest):
        check(settings)
        assert rate_factor(settings, 400) == rate_factor(BIRDS, 400)
    halved = Settings(schedule="multiplied", milestones=(25, 50, 75), factors=(0.5,), epochs=300)
    assert shrunk(halved, 0.01).factors == (0.125,)
    stepped = Settings(schedule="step10", milestones=(81, 122), epochs=160)
    assert shrunk(stepped, 0.1).factors == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "multiplied", "factors": [0.5]}, r"milestones is \[\] with the schedule multiplied: step10 and"),
        ({"schedule": "multiplied", "milestones": [3]}, r"factors is \[\] with the schedule multiplied: .*\[0.5\]"),
        ({"factors": [0.5]}, r"factors is \[0.5\] with the schedule steps: .*no other schedule has any"),
        ({"schedule": "step10", "milestones": [3], "factors": [0.1]}, r"factors is \[0.1\] with the schedule step10"),
        (
            {"schedule": "multiplied", "milestones": [3, 4, 5], "factors": [2, 0.5]},
            r"factors is \[2.0, 0.5\], which are 2 for 3 milestones: give one for all, or one for each",
        ),
        ({"schedule": "multiplied", "milestones": [3], "factors": [0]}, "factors is 0: .*greater than 0"),
        ({"schedule": "multiplied", "milestones": [3], "factors": [-1]}, "factors is -1: .*greater than 0"),
        ({"schedule": "multiplied", "milestones": [4, 3], "factors": [1]}, r"milestones is \[4, 3\], but they must"),
        ({"decay_all": "perhaps"}, "decay_all is 'perhaps'"),
    ],
)
def test_factors_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        compare_recipe(["none"], options, num_seeds=1, first_seed=0)


def test_a_run_follows_the_factors(recipe, tmp_path, monkeypatch):
    (run,) = runs_of(recipe("none", schedule="multiplied", milestones=(1, 2), factors=(2, 0.25), learning_rate=0.01))
    seen, step = [], Training.training_step

    def noted(self, batch, batch_index):
        seen.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return step(self, batch, batch_index)

    monkeypatch.setattr(Training, "training_step", noted)
    execute(run, tmp_path, machine=Machine(device="cpu", num_workers=0), report=lambda progress: None)
    assert seen == pytest.approx(3 * [0.01] + 3 * [0.02] + 3 * [0.005])


@pytest.mark.parametrize("decay_all", [False, True])
def test_weight_decay_on_all_takes_biases_and_norms_too(decay_all):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    settings = Settings(weight_decay=0.5, decay_all=decay_all, learning_rate=0.1)
    module = Training(network, Classifier(network), settings, seed=0)
    module.trainer = type("Trainer", (), {"estimated_stepping_batches": 20})()
    optimizer = module.configure_optimizers()["optimizer"]
    before = [p.detach().clone() for p in network.parameters()]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for old, new in zip(before, network.parameters(), strict=True):
        shrinks = decay_all or new.ndim > 1
        torch.testing.assert_close(new, old * (0.95 if shrinks else 1))
        assert old.any() or new.ndim == 1  # the batch norm's biases start at 0


def test_the_command_line_takes_them(monkeypatch):
    made = []
    monkeypatch.setattr(cli.experiments, "_carry_out", lambda recipe, *arguments, **options: made.append(recipe))
    words = "--jobs 1 --schedule multiplied --milestones 30,60 --factors 2,0.5 --decay-all"
    for given in (words.split(), ["--jobs", "1"]):
        monkeypatch.setattr(sys, "argv", ["heedful", "compare", "none", *given])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
    first, second = (recipe.rows[0].settings for recipe in made)
    assert (first.milestones, first.factors, first.decay_all) == ((30, 60), (2, 0.5), True)
    assert (second.milestones, second.factors, second.decay_all) == ((), (), False)

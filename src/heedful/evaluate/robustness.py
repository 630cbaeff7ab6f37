"""How often a network errs on images that are attacked, FGSM and PGD, or corrupted.

[J] is Jetley et al., "Learn to Pay Attention", ICLR 2018, which shows FGSM alone. One step flatters: read PGD's numbers
beside it. See `heedful.evaluate.attacks` and `heedful.evaluate.corruptions`.
"""

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

import torch
from torch import Tensor, nn

from heedful.data.batches import Channels, normalise
from heedful.data.dataset import Split
from heedful.errors import InputError
from heedful.evaluate.attacked_images import sheet
from heedful.evaluate.attacks import NUM_STEPS, REACH, Attacked, check_steps, fgsm, normalised_pixels, pgd
from heedful.evaluate.corruptions import CORRUPTIONS, STRENGTHS, amount_of, corrupted
from heedful.evaluate.epsilons import check_epsilons, named
from heedful.evaluate.found import Curves, Found, Headline, Numbers
from heedful.evaluate.maps import batches_of
from heedful.evaluate.object_data import Sample
from heedful.temporary import evaluation_mode

EPSILONS = (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)
HEADLINE = 8 / 255
NUM_PICTURED = 6
CLEAN = ("clean", 0.0)

Condition = tuple[str, float]
"""An attack and its ε, or a corruption and its strength."""


def robustness(
    model: nn.Module,
    sample: Sample,
    mean: Channels,
    deviation: Channels,
    *,
    epsilons: tuple[float, ...] = EPSILONS,
    steps: int = NUM_STEPS,
    corruptions: bool = False,
    seed: int = 0,
    classes: Sequence[str] = (),
) -> Found:
    """Return the error under FGSM and PGD for each ε, and if asked under common corruptions.

    Args:
        model: from normalised images to logits, on the device where to compute.
        sample: images with one class each.
        mean: per channel, to normalise with.
        deviation: likewise.
        epsilons: greatest changes of a pixel, in [0, 1], rising; at 0 no image is changed.
        steps: of PGD, at least 1.
        corruptions: whether to measure them too.
        seed: of PGD's random starts and of the corruptions' noise.
        classes: names of the outputs, for the picture; a class beyond them is shown by its number.

    Returns:
        Numbers: `clean_error` in percent; `epsilons`; `fgsm` and `pgd`, each with `errors` and `fooling_rates` in
        percent, the latter of the images that were right before the attack (None if there are none), and
        `num_without_gradient`, the images that it could not attack (None at ε = 0); `steps`, `step_size` in ε, `seed`;
        and `corruptions`, name -> `amounts` and `errors` by strength, and `corruption_error`, the mean over all of
        them, both None if not asked for.

    Raises:
        InputError: if epsilons or steps are wrong, images have several classes, or there is no image.
    """
    _check(sample, epsilons, steps)
    measured = _Measured(_Subject(model, mean, deviation, steps), epsilons, corruptions, seed)
    for pixels, labels in _pixel_batches(sample.split, next(model.parameters()).device):
        measured.add(pixels, labels)
    numbers = {"data": sample.name, "num_images": len(sample.split), **measured.numbers()}
    shown = _shown(epsilons)
    picture = _picture(measured.subject, sample.limited(NUM_PICTURED), shown, seed, classes)
    return Found(numbers, _headlines(numbers, shown), _curves(numbers), {"robustness": picture})


class _Subject:
    """A network with what belongs to its images, and the attacks on it."""

    def __init__(self, model: nn.Module, mean: Channels, deviation: Channels, steps: int) -> None:
        self.model, self.mean, self.deviation, self.steps = model, mean, deviation, steps

    def predicted(self, inputs: Tensor) -> Tensor:
        """Return the classes of normalised images, on the CPU."""
        with evaluation_mode(self.model), torch.inference_mode():
            return self.model(inputs).float().argmax(1).cpu()

    def predicted_of(self, attacked: Attacked) -> Tensor:
        """Return the classes of attacked images."""
        return self.predicted(normalised_pixels(attacked.images, self.mean, self.deviation))

    def attacks(
        self, pixels: Tensor, labels: Tensor, epsilon: float, generator: torch.Generator
    ) -> Iterator[tuple[str, Attacked]]:
        """Yield the name of each attack and what it made of uint8 images."""
        attacks: dict[str, Callable[..., Attacked]] = {
            "fgsm": fgsm,
            "pgd": functools.partial(pgd, steps=self.steps, generator=generator),
        }
        for name, attack in attacks.items():
            yield name, attack(self.model, pixels / 255, labels, epsilon, self.mean, self.deviation)


class _Measured:
    """What a network takes the images for, under every condition, batch by batch."""

    def __init__(self, subject: _Subject, epsilons: tuple[float, ...], corruptions: bool, seed: int) -> None:
        self.subject, self.epsilons, self.corruptions, self.seed = subject, epsilons, corruptions, seed
        # One for each ε: the starts are then the same points of every ball, however the images are batched.
        self.generators = {epsilon: torch.Generator().manual_seed(seed) for epsilon in epsilons}
        self.classes: dict[Condition, list[Tensor]] = defaultdict(list)
        self.labels: list[Tensor] = []
        self.without_gradient: Counter[Condition] = Counter()
        self.num_images = self.image_size = 0

    def add(self, pixels: Tensor, labels: Tensor) -> None:
        """Count a batch of uint8 images."""
        subject = self.subject
        self.classes[CLEAN].append(subject.predicted(normalise(pixels, subject.mean, subject.deviation)))
        for epsilon in filter(None, self.epsilons):
            for name, attacked in subject.attacks(pixels, labels, epsilon, self.generators[epsilon]):
                self.classes[name, epsilon].append(subject.predicted_of(attacked))
                self.without_gradient[name, epsilon] += int(attacked.without_gradient.sum())
        if self.corruptions:
            self._corrupt(pixels)
        self.labels.append(labels.cpu())
        self.num_images += len(labels)
        self.image_size = min(pixels.shape[2:])

    def _corrupt(self, pixels: Tensor) -> None:
        subject = self.subject
        for name in CORRUPTIONS:
            for strength in STRENGTHS:
                changed = corrupted(pixels, name, strength, seed=self.seed, first=self.num_images).to(pixels.device)
                inputs = normalise(changed, subject.mean, subject.deviation)
                self.classes[name, strength].append(subject.predicted(inputs))

    def numbers(self) -> Numbers:
        """Return what `robustness` says of the images counted."""
        return {
            "clean_error": self._error(CLEAN),
            "epsilons": list(self.epsilons),
            **{name: self._of_attack(name) for name in ("fgsm", "pgd")},
            "steps": self.subject.steps,
            "step_size": REACH / self.subject.steps,
            "seed": self.seed,
            **self._of_corruptions(),
        }

    def _of_attack(self, name: str) -> Numbers:
        conditions = [(name, epsilon) if epsilon else CLEAN for epsilon in self.epsilons]
        return {
            "errors": [self._error(each) for each in conditions],
            "fooling_rates": [self._fooling_rate(each) for each in conditions],
            "num_without_gradient": [None if each == CLEAN else self.without_gradient[each] for each in conditions],
        }

    def _of_corruptions(self) -> Numbers:
        if not self.corruptions:
            return {"corruptions": None, "corruption_error": None}
        found: Numbers = {
            name: {
                "amounts": [amount_of(name, strength, self.image_size) for strength in STRENGTHS],
                "errors": [self._error((name, strength)) for strength in STRENGTHS],
            }
            for name in CORRUPTIONS
        }
        return {"corruptions": found, "corruption_error": fmean(e for each in found.values() for e in each["errors"])}

    def _right(self, condition: Condition) -> Tensor:
        return torch.cat(self.classes[condition]) == torch.cat(self.labels)

    def _error(self, condition: Condition) -> float:
        # Of an accuracy in float32, as `classification` has it, so that the two are equal to the bit.
        return 100 * (1 - self._right(condition).float().mean().double().item())

    def _fooling_rate(self, condition: Condition) -> float | None:
        before = self._right(CLEAN)
        if not before.any():
            return None
        return 100 * int((before & ~self._right(condition)).sum()) / int(before.sum())


def _check(sample: Sample, epsilons: Sequence[float], steps: int) -> None:
    check_epsilons(epsilons)
    check_steps(steps)
    if sample.split.labels.ndim != 1:
        raise InputError(f"{sample.name} has images with several classes, but attacks are on one true class")
    if not len(sample.split):
        raise InputError(f"{sample.name} has no images to attack: give others by --data")


def _pixel_batches(split: Split, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield uint8 images, as the network sees them before they are normalised, and labels, on the device."""
    for images, labels in batches_of(split, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), device):
        yield (images * 255).round().to(torch.uint8), labels


def _shown(epsilons: Sequence[float]) -> float:
    """Return the ε of the table and of the picture: the greatest up to HEADLINE, or the least, other than 0."""
    attacking = [epsilon for epsilon in epsilons if epsilon] or list(epsilons)
    return max((epsilon for epsilon in attacking if epsilon <= HEADLINE), default=attacking[0])


def _headlines(numbers: Numbers, epsilon: float) -> tuple[Headline, ...]:
    place = numbers["epsilons"].index(epsilon)
    found = [
        Headline(f"{title} {named(epsilon)} error", numbers[name]["errors"][place], "%", "lower")
        for name, title in _titles(numbers["steps"]).items()
    ]
    if numbers["corruption_error"] is not None:
        found.append(Headline("corruption error", numbers["corruption_error"], "%", "lower"))
    return tuple(found)


def _curves(numbers: Numbers) -> tuple[Curves, ...]:
    levels, titles = tuple(255 * epsilon for epsilon in numbers["epsilons"]), _titles(numbers["steps"])
    found = []
    for measure, name in (("errors", "Error"), ("fooling_rates", "Fooling rate")):
        lines = {title: tuple(numbers[attack][measure]) for attack, title in titles.items()}
        if None not in lines["FGSM"]:
            title, y_name = f"{name} under attack", f"{name.lower()}, %"
            found.append(Curves(title, "ε, grey levels of 255", y_name, levels, lines))
    if numbers["corruptions"] is not None:
        lines = {name: (numbers["clean_error"], *each["errors"]) for name, each in numbers["corruptions"].items()}
        found.append(Curves("Error under corruption", "strength", "error, %", (0.0, *map(float, STRENGTHS)), lines))
    return tuple(found)


def _titles(steps: int) -> dict[str, str]:
    return {"fgsm": "FGSM", "pgd": f"PGD-{steps}"}


def _picture(subject: _Subject, few: Sample, epsilon: float, seed: int, classes: Sequence[str]) -> bytes:
    pixels, labels = next(_pixel_batches(few.split, next(subject.model.parameters()).device))
    clean = subject.predicted(normalise(pixels, subject.mean, subject.deviation))
    versions = [("image", pixels / 255, clean)]
    generator = torch.Generator().manual_seed(seed)
    titles = _titles(subject.steps)
    for name, attacked in subject.attacks(pixels, labels, epsilon, generator):
        versions.append((f"{titles[name]} {named(epsilon)}", attacked.images, subject.predicted_of(attacked)))
    return sheet(versions, labels.cpu(), epsilon, classes)

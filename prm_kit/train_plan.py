"""Which examples every update of a run is made of; a function of the settings and the data, so nothing is saved."""

from __future__ import annotations

from collections.abc import Sequence

from prm_kit.batching import epoch_updates, updates_per_epoch
from prm_kit.examples import Example
from prm_kit.pack import prefix_groups
from prm_kit.train_forward import distinct_tokens
from prm_kit.train_settings import TrainSettings


class TrainPlan:
    """The updates of a run.

    Args:
        settings: Of the run; `share_prefixes` is decided.
        examples: All training examples.

    Attributes:
        per_epoch: Updates in an epoch.
        updates: In all.
    """

    def __init__(self, settings: TrainSettings, examples: Sequence[Example]) -> None:
        self.settings, self.examples = settings, examples
        self._units, self._lengths = units_of(examples, bool(settings.share_prefixes), settings.batch_tokens)
        self.per_epoch = updates_per_epoch(self._lengths, settings.batch_tokens)
        self.updates = settings.updates or self.per_epoch * (settings.epochs or 1)
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def units(self, update: int) -> list[list[Example]]:
        """The examples of an update; those of one unit share a prompt."""
        epoch, position = divmod(update, self.per_epoch)
        if self._epoch[0] != epoch:
            settings = self.settings
            pool = 1 if settings.share_prefixes else settings.bucket_updates
            self._epoch = epoch, epoch_updates(self._lengths, settings.batch_tokens, pool, settings.seed, epoch)
        return [[self.examples[index] for index in self._units[unit]] for unit in self._epoch[1][position]]


def units_of(examples: Sequence[Example], share_prefixes: bool, batch_tokens: int) -> tuple[list[list[int]], list[int]]:
    """What is dealt into updates as a whole, and the tokens of each.

    Args:
        examples: All training examples.
        share_prefixes: Whether examples of one prompt go together, as far as they fit into one update.
        batch_tokens: Tokens of an update.
    """
    if not share_prefixes:
        return [[index] for index in range(len(examples))], [len(example.ids) for example in examples]
    families: dict[bytes, list[int]] = {}
    for index, example in enumerate(examples):
        families.setdefault(example.ids[: example.prompt_length].tobytes(), []).append(index)
    units = []
    for family in families.values():
        for group in prefix_groups([examples[index].ids.tolist() for index in family], batch_tokens):
            units.append([family[member] for member in group])
    return units, [distinct_tokens([examples[index] for index in unit]) for unit in units]

"""What the figures of a round say together: the ratios of `bench train`, and the report of all rounds.

    ratio_to_bare_model     clips a second of training from the cache over those of forward, backward and optimiser on
                            a batch that lies ready on the device.
    data_share              share of a step in which it waits for data.
    ratio_to_decoding       seconds a clip of training that decodes the videos and runs the frozen models again, over
                            those of training from the cache: so many times as fast is an epoch.
    ratio_to_decoding_with_tokens  the same where a frozen TimeSformer's tokens come from the cache in both.
    bound                   what that ratio can be at most if nothing is lost on either side: seconds of the bare model,
                            frozen models and decoding, each alone, over those of the bare model. Decoding is counted on
                            one thread, its seconds over cores; on a GPU it is free while the device is slower.
    ratio_to_bound          ratio_to_decoding over bound.
    decoding_to_its_parts   the same parts over what training that decodes takes: 1 where the baseline loses nothing.

Every ratio is the median over rounds, each of which measures everything once, in turn. A reader may ask why decoding
is not counted in core-seconds, as `bench extract` does: on a quiet machine they are the same, and where others compute
as well, seconds grow like those of the other parts, so that the bound stays one of the machine as it is.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from extract.bench.parts import DECODING, Cost
from train.bench.memory import PeakMemory
from train.bench.steps import LoadingCost, Steps
from train.step_clock import PARTS


@dataclass(frozen=True, kw_only=True)
class Round:
    """Everything measured once; `parts` are per clip, each alone, and `with_tokens` is there for frozen tokens only."""

    cached: Steps
    bare: Steps
    decoding: Steps
    with_tokens: Steps | None
    loading: LoadingCost
    parts: Mapping[str, Cost]
    cores: int
    is_gpu: bool

    @property
    def decoding_bound_seconds(self) -> float:
        """Fewest seconds a clip of training that decodes, if its parts overlap without loss."""
        models = sum(cost.seconds for part, cost in self.parts.items() if part != DECODING)
        on_device = self.bare.model_seconds_per_clip + models
        on_cores = self.parts[DECODING].seconds / self.cores
        return max(on_cores, on_device) if self.is_gpu else on_cores + on_device

    @property
    def ratios(self) -> dict[str, float | None]:
        """By the keys of the report; None where there are no frozen tokens."""
        cached, bare = self.cached.seconds_per_clip, self.bare.model_seconds_per_clip
        decoding, bound = self.decoding.seconds_per_clip, self.decoding_bound_seconds / bare
        return {
            "ratio_to_bare_model": bare / cached,
            "data_share": self.cached.data_share,
            "ratio_to_decoding": decoding / cached,
            "ratio_to_decoding_with_tokens": self.with_tokens.seconds_per_clip / cached if self.with_tokens else None,
            "bound": bound,
            "ratio_to_bound": decoding / cached / bound,
            "decoding_to_its_parts": self.decoding_bound_seconds / decoding,
        }


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """All rounds, and what they were measured with."""

    rounds: tuple[Round, ...]
    memory: PeakMemory
    facts: Mapping[str, Any]

    @property
    def ratios(self) -> dict[str, float | None]:
        """Medians over the rounds."""
        found = {key: [entry.ratios[key] for entry in self.rounds] for key in self.rounds[0].ratios}
        return {
            key: median(value for value in values if value is not None) if values[0] is not None else None
            for key, values in found.items()
        }

    @property
    def step(self) -> dict[str, float]:
        """Seconds of a step from the cache: by part, and all of it."""
        parts: dict[str, float] = {part: median(entry.cached.parts[part] for entry in self.rounds) for part in PARTS}
        return {**parts, "whole": median(entry.cached.seconds_per_clip * self.num_clips for entry in self.rounds)}

    @property
    def num_clips(self) -> int:
        """Of a step."""
        return self.rounds[0].cached.num_clips

    @property
    def seconds_per_clip(self) -> dict[str, float]:
        """Of the ways to train, medians over the rounds."""
        ways = {
            "from_cache": [entry.cached.seconds_per_clip for entry in self.rounds],
            "bare_model": [entry.bare.model_seconds_per_clip for entry in self.rounds],
            "decoding": [entry.decoding.seconds_per_clip for entry in self.rounds],
            "decoding_with_tokens": [
                entry.with_tokens.seconds_per_clip for entry in self.rounds if entry.with_tokens is not None
            ],
        }
        return {way: median(values) for way, values in ways.items() if values}

    @property
    def parts(self) -> dict[str, Cost]:
        """Of a clip where everything is made again, medians over the rounds."""
        return {
            part: Cost(
                core_seconds=median(entry.parts[part].core_seconds for entry in self.rounds),
                seconds=median(entry.parts[part].seconds for entry in self.rounds),
            )
            for part in self.rounds[0].parts
        }

    @property
    def loading(self) -> LoadingCost:
        """Of a clip from the cache, medians over the rounds."""
        return LoadingCost(
            seconds=median(entry.loading.seconds for entry in self.rounds),
            core_seconds=median(entry.loading.core_seconds for entry in self.rounds),
        )

    @property
    def core_share(self) -> float:
        """Share of a core that decoding got, which needs one: below 1 others run here too, or the disk is slow."""
        return self.parts[DECODING].core_seconds / self.parts[DECODING].seconds

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        seconds = self.seconds_per_clip
        return {
            **self.ratios,
            "clips_per_second": {way: 1 / value for way, value in seconds.items()},
            "step_seconds": self.step,
            "loader": asdict(self.loading),
            "parts": {part: asdict(cost) for part, cost in self.parts.items()},
            "peak_memory_bytes": self.memory.peak,
            "memory": asdict(self.memory),
            "core_share": self.core_share,
            "rounds": [entry.ratios for entry in self.rounds],
            **self.facts,
        }

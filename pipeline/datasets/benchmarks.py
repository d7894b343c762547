"""The benchmarks that `prepare` knows, by name."""

from collections.abc import Mapping
from pathlib import Path

from cache.errors import ConfigError
from pipeline.datasets import breakfast, charades, coin, diving48, finegym, haa500, toyota_smarthome
from pipeline.datasets.annotations import AnnotationFolder
from pipeline.datasets.preparation import Benchmark, Preparation, Request
from pipeline.datasets.videos import VideoFolder

BENCHMARKS: Mapping[str, Benchmark] = {
    module.BENCHMARK.name.replace("_", "-"): module.BENCHMARK
    for module in (breakfast, coin, charades, diving48, finegym, haa500, toyota_smarthome)
}


def prepare_benchmark(
    name: str, annotations: Path, videos: VideoFolder, *, prompt: str | None = None, version: str | None = None
) -> Preparation:
    """Reads the official files of a benchmark.

    Args:
        name: one of BENCHMARKS.
        annotations: the folder of the official files, at any depth.
        videos: what is there.
        prompt: template of the class prompts; by default the benchmark's own.
        version: of the annotations, where there are several.

    Raises:
        ConfigError: no such version.
        ManifestError: a file is missing or is not what it should be, with file and line.
    """
    benchmark = BENCHMARKS[name]
    if version is not None and version not in benchmark.versions:
        accepted = ", ".join(benchmark.versions) or "none (there is one, or its protocols carry theirs)"
        raise ConfigError(f"--version {version!r} of {name}: accepted: {accepted}")
    if prompt is not None and "{}" not in prompt:
        raise ConfigError(f"--prompt {prompt!r}: it needs {{}}, where the text of the class goes")
    return benchmark.prepare(
        Request(
            annotations=AnnotationFolder(annotations),
            videos=videos,
            prompt=benchmark.prompt if prompt is None else prompt,
            version=version or (benchmark.versions[0] if benchmark.versions else ""),
        )
    )

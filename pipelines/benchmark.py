"""Measure costs: `step` of a training step of each objective, in time and memory; `economy` of a run
whose alignment loss is made in some steps or clips only; `attention` of its attention kernels;
`parameters` counts the trainings of released checkpoints, without their weights; `fvd` is that of
evaluation; `decode` that of reading videos; `extract` compares extractions with one worker and with
several; `manifest` opens large datasets; `loader` compares what training reads with what a training
step takes; `memory` compares estimated and measured peaks, and a naive training with an economical one;
`generation` is what control costs per denoising step; `long_video` looks at memory, seams and poses of a
video much longer than a window.

python pipelines/benchmark.py step --config configs/animatediff/benchmark_step.yaml
python pipelines/benchmark.py economy --config configs/animatediff/benchmark_economy.yaml
python pipelines/benchmark.py attention
python pipelines/benchmark.py parameters
python pipelines/benchmark.py fvd
python pipelines/benchmark.py decode --config configs/benchmark_decode.yaml
python pipelines/benchmark.py extract
python pipelines/benchmark.py manifest
python pipelines/benchmark.py loader
python pipelines/benchmark.py memory
python pipelines/benchmark.py generation
python pipelines/benchmark.py generation --config configs/wan/benchmark_generation.yaml
python pipelines/benchmark.py long_video
"""

import sys

from lisa_video.benchmarks import BENCHMARKS
from lisa_video.cli import EXIT_USER_ERROR, run_job


def main(arguments: list[str]) -> None:
    names = ", ".join(BENCHMARKS)
    name, rest = arguments[0] if arguments else "", arguments[1:]
    if name in ("-h", "--help"):
        print(f"{__doc__}\nusage: benchmark.py BENCHMARK [--help] ..., one of: {names}")
        return
    if name not in BENCHMARKS:
        print(
            f"error: no benchmark '{name}'; the first argument is one of: {names}", file=sys.stderr
        )
        raise SystemExit(EXIT_USER_ERROR)
    benchmark = BENCHMARKS[name]
    run_job(
        benchmark.config_class,
        benchmark.function("run"),
        check=benchmark.function("check"),
        description=benchmark.config_class.__doc__ or name,
        argv=rest,
    )


if __name__ == "__main__":
    main(sys.argv[1:])

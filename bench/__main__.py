"""The command line: `python -m bench` lists the benchmarks, `python -m bench NAME... --output FOLDER` runs them."""

import argparse
import json
import sys
from pathlib import Path

from bench.catalog import CATALOG
from bench.header import machine_and_versions
from bench.kafka_setting import FULL
from bench.run import ROUNDS, BenchmarkError, run
from bench.table import table


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0, 1 where a contender failed or disagreed, 2 for a wrong command line."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["crash"]:  # no contest of times: its options are its own
        from bench.crash import main as crash

        return crash(given[1:])
    if given[:1] == ["quality"]:  # nor this one
        from bench.quality import main as quality

        return quality(given[1:])
    if given[:1] == ["readme"]:
        from bench.readme import main as readme

        return readme(given[1:])
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Runs benchmarks; without a name, lists them.",
        epilog="`python -m bench crash --help` tells of the campaigns of kills, `quality --help` of scores and flags, "
        "`readme --help` of the figures in README.md.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run, of: " + ", ".join(CATALOG))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write header, rows and ratios there")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write that to bench.json there, and pictures")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"starts of each contender (default {ROUNDS})")
    parser.add_argument("--records", type=int, default=FULL, help=f"kafka: records of each peer (default {FULL:_})")
    chosen = parser.parse_args(given)
    for name in chosen.names:
        if name not in CATALOG:
            parser.error(f"no benchmark {name!r}; there are {', '.join(CATALOG)}")
    if chosen.rounds < 1:
        parser.error(f"--rounds: must be at least 1, got {chosen.rounds}")
    if chosen.records < 20_000:
        parser.error(f"--records: must be at least 20000, got {chosen.records}")
    if not chosen.names:
        for benchmark in CATALOG.values():
            print(f"{benchmark.name:10} {benchmark.says}")
        return 0
    if chosen.output is not None:
        try:
            from bench.picture import write_pictures  # before anything runs: it may be missing

            chosen.output.mkdir(parents=True, exist_ok=True)
        except ModuleNotFoundError as error:
            parser.error(f"--output: {error.name} is not installed; pip install 'streamlstm[bench]'")
        except OSError as error:
            parser.error(f"--output: {chosen.output}: {error.strerror}")
    header = machine_and_versions(chosen.rounds)
    try:
        benchmarks = [CATALOG[name] for name in chosen.names]
        rows, ratios, facts = run(benchmarks, chosen.rounds, _progress, chosen.records)
    except BenchmarkError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    header |= facts
    print(table(header, rows, ratios))
    result = json.dumps({"header": header, "rows": rows, "ratios": ratios}, indent=1) + "\n"
    if chosen.json is not None:
        chosen.json.write_text(result)
    if chosen.output is not None:
        (chosen.output / "bench.json").write_text(result)
        write_pictures(header, rows, chosen.output)
    return 0


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

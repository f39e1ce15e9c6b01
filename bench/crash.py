"""`python -m bench crash`: workers that are killed, moved, frozen, cut off, and outputs that must not show it.

Two workers score events that never stop coming, and somebody disturbs them; then everything is read to its end and
compared with one undisturbed replay of the same topic. With exactly_once every flag, score and dead letter must be there
once under read_committed; with at_least_once the same set once repeats are removed.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.agreement import Disagreement
from bench.crash_compare import compare
from bench.crash_setting import SESSION_MS, Plan, Setting

MODES = ("at_least_once", "exactly_once")
Disturb = Callable[[Setting, random.Random, float], None]


def _kill(setting: Setting, rng: random.Random, pause_s: float) -> None:
    time.sleep(rng.uniform(0.1, pause_s))
    victim = rng.choice(setting.workers.numbers())
    setting.workers.kill(victim)
    if rng.random() < 0.3:  # long enough that the other one takes over
        time.sleep(1.5 * SESSION_MS / 1000)
    setting.workers.start(victim)


def _rebalance(setting: Setting, rng: random.Random, pause_s: float) -> None:
    time.sleep(rng.uniform(0.5, pause_s))
    running = setting.workers.numbers()
    idle = [number for number in range(3) if number not in running]
    if idle and (len(running) == 1 or rng.random() < 0.5):
        setting.workers.start(rng.choice(idle))
    else:
        setting.workers.stop(rng.choice(running))


def _stop_broker(setting: Setting, rng: random.Random, pause_s: float) -> None:
    time.sleep(rng.uniform(1, 5))
    setting.broker.stop()
    time.sleep(pause_s)
    setting.broker.start()


def _freeze_broker(setting: Setting, rng: random.Random, pause_s: float) -> None:
    time.sleep(rng.uniform(1, 5))
    setting.broker.freeze()
    time.sleep(pause_s)
    setting.broker.thaw()


def _freeze_worker(setting: Setting, rng: random.Random, pause_s: float) -> None:
    time.sleep(rng.uniform(2, 5))
    victim = rng.choice(setting.workers.numbers())
    setting.workers.send(victim, signal.SIGSTOP)
    time.sleep(SESSION_MS / 1000 + rng.uniform(0.0, pause_s))
    setting.workers.send(victim, signal.SIGCONT)


SCENARIOS: dict[str, tuple[Disturb, float]] = {
    "kill": (_kill, 6.0),
    "rebalance": (_rebalance, 5.0),
    "broker-stop": (_stop_broker, 30.0),
    "broker-freeze": (_freeze_broker, 20.0),
    "worker-freeze": (_freeze_worker, 10.0),
}
"""What disturbs, and the seconds that it waits or lasts by default."""


def campaign(folder: Path, plan: Plan, report: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """A row of the table; Disagreement where workers end by themselves, do not catch up or do not stop."""
    rng = random.Random(plan.seed)
    disturb, usual_s = SCENARIOS[plan.scenario]
    began = time.monotonic()
    with Setting(folder, plan) as setting:
        setting.await_progress()
        for number in range(plan.times):
            disturb(setting, rng, usual_s if plan.pause_s is None else plan.pause_s)
            report(f"{plan.mode} {plan.scenario}: {number + 1} of {plan.times}")
        setting.finish()
        seconds = time.monotonic() - began
        report(f"{plan.mode} {plan.scenario}: comparing")
        found = compare(setting)
    row = asdict(plan) | {"events": setting.feeder.sent, "seconds": round(seconds)}
    for name, counts in found.items():
        row |= {f"{name} {field}": getattr(counts, field) for field in counts.__slots__}
    row["holds"] = all(counts.holds(repeats_allowed=plan.mode == "at_least_once") for counts in found.values())
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    fields = ("expected", "found", "repeats", "missing", "extra", "different")
    lines = [
        "| mode | disturbed by | snapshots | times | events | outputs | " + " | ".join(fields) + " | seconds | holds |",
        "|---" * (8 + len(fields)) + "|",
    ]
    for row in rows:
        for what in ("flags", "scores", "letters"):
            kind = ", ".join([row["scenario"], *(name for name in ("static", "online") if row[name])])
            kind += f", {row['assignor']}" if row["assignor"] != "cooperative-sticky" else ""
            cells = [row["mode"], kind, row["snapshots"], row["times"], row["events"], what]
            cells += [row[f"{what} {field}"] for field in fields]
            lines.append(f"| {' | '.join(map(str, cells))} | {row['seconds']} | {'yes' if row['holds'] else 'NO'} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """The exit status: 0, 1 where the outputs differ, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="python -m bench crash", description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20, metavar="N", help="how often to disturb (default 20)")
    parser.add_argument("--mode", choices=MODES, action="append", help="default: both, one after the other")
    parser.add_argument("--scenario", choices=tuple(SCENARIOS), action="append", help="default: kill")
    parser.add_argument("--snapshots", choices=("folder", "topic"), default="folder")
    parser.add_argument(
        "--assignor", choices=("cooperative-sticky", "range", "roundrobin"), default="cooperative-sticky"
    )
    parser.add_argument("--static", action="store_true", help="static members of the group")
    parser.add_argument("--online", action="store_true", help="weights that learn, not frozen ones")
    parser.add_argument("--rate", type=int, default=1000, help="events a second (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, metavar="SECONDS", help="between two kills, or how long it lasts")
    parser.add_argument("--folder", type=Path, help="keep logs and data there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    chosen = parser.parse_args(arguments)
    rows, failed = [], False
    for scenario in chosen.scenario or ["kill"]:
        for mode in chosen.mode or MODES:
            plan = Plan(
                mode, scenario, chosen.times, chosen.pause, chosen.snapshots, chosen.assignor,
                chosen.static, chosen.online, chosen.rate, chosen.seed,
            )  # fmt: skip
            with ExitStack() as stack:
                if chosen.folder is None:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlstm-crash-")))
                else:
                    folder = chosen.folder / f"{scenario}-{mode}"
                    folder.mkdir(parents=True)
                try:
                    row = campaign(folder, plan, lambda line: print(line, file=sys.stderr, flush=True))
                except Disagreement as error:
                    print(f"bench: crash: {mode} {scenario}: {error}", file=sys.stderr)
                    failed = True
                    continue
            rows.append(row)
            failed = failed or not row["holds"]
    print(table(rows))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(failed)

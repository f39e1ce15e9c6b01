"""How the daemon is set up for the Kafka benchmark."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.agreement import Disagreement
from bench.kafka_events import FEATURE, TIME, model_path
from bench.kafka_setting import Setting
from bench.kafka_topics import create

_STATUS_INTERVAL_S = 0.25


def settings(setting: Setting, topic: str, flags: str, **more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The configuration of a daemon from a topic to a topic; `more` changes keys of its sections."""
    name = setting.name("daemon")
    sections: dict[str, dict[str, Any]] = {
        "kafka": {"bootstrap_servers": [setting.bootstrap], "topics": [topic], "group_id": name},
        "messages": {"format": "json"},
        "input": {"time": TIME, "time_unit": "ms", "features": [FEATURE]},
        "model": {"file": str(model_path(setting.folder))},
        "outputs": {"flags": f"kafka:{flags}", "dead_letters": f"kafka:{create(setting, setting.name('dead'))}"},
        "delivery": {"snapshots": str(setting.folder / name), "snapshot_interval_s": 5.0, "transactional_id": name},
        "service": {"log_format": "json", "status_interval_s": _STATUS_INTERVAL_S},
    }
    return {section: sections.get(section, {}) | more.get(section, {}) for section in sections | more}


def compile_kernels(folder: Path) -> None:
    """Fills the compile cache once per folder: no measurement is about that."""
    done = folder / "compiled"
    if not done.exists():
        command = [sys.executable, "-m", "streamlstm", "warm-up"]
        made = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if made.returncode != 0:
            raise Disagreement(f"streamlstm warm-up failed: {made.stderr[-2000:].strip()}")
        done.touch()

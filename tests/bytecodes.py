"""Counts what Python executes: the same number for a short and a long batch means no Python object per event."""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def executed_bytecodes(action: Callable[[], Any]) -> int:
    """Number of bytecodes that Python executes in `action`."""
    count = 0
    gc.collect()
    gc.disable()  # callbacks of others would be counted
    before = sys.gettrace()
    try:
        if sys.version_info >= (3, 12):
            monitoring, tool = sys.monitoring, 4

            def instruction(code: Any, offset: int) -> None:
                nonlocal count
                count += 1

            monitoring.use_tool_id(tool, "opcodes")
            monitoring.register_callback(tool, monitoring.events.INSTRUCTION, instruction)
            monitoring.set_events(tool, monitoring.events.INSTRUCTION)
            try:
                action()
            finally:
                monitoring.set_events(tool, 0)
                monitoring.free_tool_id(tool)
        else:

            def trace(frame: FrameType, event: str, argument: Any) -> Any:
                nonlocal count
                frame.f_trace_opcodes, frame.f_trace_lines = True, False
                count += event == "opcode"
                return trace

            sys.settrace(trace)
            action()
    finally:
        sys.settrace(before)
        gc.enable()
    return count

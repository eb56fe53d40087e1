"""The machine behind the embedded cluster: controllers that keep objects in order, and pods that are processes.

`run_machine` is all that others need. It isolates nothing: see `machine`.
"""

from vanadium_node.local.machine.machine import run_machine

__all__ = ["run_machine"]

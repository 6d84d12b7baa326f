"""Processes that read or prepare pictures for another one."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Makes this process end when the one that started it does: after a kill it would else wait for work for ever."""

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()

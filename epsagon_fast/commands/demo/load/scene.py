"""Traces of the standard library: four workers, started in four ways, share its packages.

One trace for a package, one event for a source file. One worker is killed in the middle of a trace, the collector is
killed once too.
"""

import os

from epsagon_fast.backend.store import Store
from epsagon_fast.commands.demo.load.report import WorkerNotes, compare, favourite, table
from epsagon_fast.commands.demo.load.ways import WAYS, StartedWorker
from epsagon_fast.commands.demo.load.work import standard_library
from epsagon_fast.commands.demo.stage import Stage, Stay, undisturbed, until

# The worker that is killed dies after this many events of one trace.
DIE_AFTER = 5
# The rings are large, because a worker pushes whole source files while no collector reads for a moment.
RING_BYTES = 4 * 1024 * 1024


def scene(stage: Stage, stay: Stay | None) -> int:
    """Run the scene; return 0 if nothing is missing. `stay`: what to wait for at the end."""
    os.environ.clear()
    # The workers that are forked have the environment of this process.
    os.environ.update(stage.environment(EPSAGON_APP_NAME="demo", EPSAGON_RING_BYTES=str(RING_BYTES)))
    notes_of = {way: os.path.join(stage.scratch, way.replace(" ", "-")) for way in WAYS}
    with Store(stage.database) as store:
        _work(notes_of, stage, store)
        notes = WorkerNotes()
        for path in notes_of.values():
            notes.read(path)
        until(lambda: store.counts()["traces"] >= len(notes.traces))
        counted = stage.stop_collector()
        result = compare(notes, store)
        shown = favourite(store)
    print("\n" + table(result, notes, counted.get("bytes_before_trimming", 0)))
    if shown is not None:
        stage.show(shown)
    if stay is not None:
        stay(stage)
    return 0 if not result.missing and result.died == 1 and result.delivered == result.opened else 1


def _work(notes_of: dict[str, str], stage: Stage, store: Store) -> None:
    """Start the workers, kill the collector when a good part has arrived, and wait for the workers."""
    packages = standard_library()
    workers: dict[str, StartedWorker] = {}
    try:
        for way, share in zip(WAYS, _shares(packages, len(WAYS)), strict=True):
            is_victim = way == "subprocess"
            said = f"{len(share)} packages, {sum(map(len, share.values()))} files"
            print(f"worker by {way}: {said}{', will be killed' if is_victim else ''}", flush=True)
            with undisturbed():
                workers[way] = WAYS[way](notes_of[way], share, DIE_AFTER if is_victim else 0)
        until(lambda: store.counts()["traces"] >= len(packages) // 5)
        print(f"collector {stage.kill_collector()} killed", flush=True)
        for way, worker in workers.items():
            print(f"worker by {way} ended: {worker.ended()}; {store.counts()['traces']} traces arrived", flush=True)
    finally:
        with undisturbed():
            for worker in workers.values():
                worker.end()


def _shares(packages: dict[str, list[str]], count: int) -> list[dict[str, list[str]]]:
    """Deal the packages out, the largest first, each to the worker that has the fewest files so far."""
    shares: list[dict[str, list[str]]] = [{} for _ in range(count)]
    for name, paths in sorted(packages.items(), key=lambda item: -len(item[1])):
        min(shares, key=lambda share: sum(map(len, share.values())))[name] = paths
    # The last worker dies in its first trace with enough files, so it gets small packages first.
    shares[-1] = dict(sorted(shares[-1].items(), key=lambda item: len(item[1])))
    return shares

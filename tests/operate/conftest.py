"""One broker for all tests that look at it: watched from before its first call until after its last fault."""

import sys
from dataclasses import dataclass

import pytest

from processes import ROOT, run

sys.path.insert(0, str(ROOT / "tests" / "dashboards"))


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """Generated from proto/, as any user would make them."""
    out = tmp_path_factory.mktemp("stubs")
    protos = sorted((ROOT / "proto" / "jeton" / "v1").glob("*.proto"))
    run(sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}", *protos)
    sys.path.insert(0, str(out))
    yield out
    sys.path.remove(str(out))


@dataclass
class Watched:
    """When it began and ended, and what there is to look at."""

    world: object
    prometheus: object
    collector: object
    sink: object
    story: object
    began: float
    ended: float

    def samples(self, expression):
        return self.prometheus.samples(expression, self.began, self.ended)


@pytest.fixture(scope="session")
def watched(stubs, tmp_path_factory):
    from story import Story
    from watchers import Collector, Prometheus, Sink
    from world import World, now

    folder = tmp_path_factory.mktemp("watched")
    started = []

    def start(one):
        started.append(one)
        return one

    try:
        sink = start(Sink())
        collector = Collector(folder, sink)
        start(collector.process)
        world = start(World(folder, collector))
        began = now()
        prometheus = Prometheus(folder, world.endpoints["metrics"].split("/")[2], collector.metrics)
        start(prometheus.process)
        story = Story(world, prometheus)
        story.tell()
        yield Watched(world, prometheus, collector, sink, story, began, now())
    finally:
        for one in reversed(started):
            one.stop()

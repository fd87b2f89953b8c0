from mock_upstream.faults import Fault
from mock_upstream.server import run_mock
from mock_upstream.upstream import MockUpstream

__all__ = ["Fault", "MockUpstream", "run_mock"]

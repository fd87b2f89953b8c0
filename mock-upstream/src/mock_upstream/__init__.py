from mock_upstream.app import MockUpstream
from mock_upstream.faults import Fault
from mock_upstream.server import run_mock

__all__ = ["Fault", "MockUpstream", "run_mock"]

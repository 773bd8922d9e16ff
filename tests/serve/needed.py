"""Skips the module that imports this, and says so, where the packages of the extra `serve` are missing."""

import pytest

for package in ("starlette", "uvicorn", "prometheus_client", "llguidance"):
    pytest.importorskip(package, reason=f"the extra `serve` is not installed: no {package}")

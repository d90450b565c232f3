"""What tests of torch.compile need."""

from __future__ import annotations

import os
import shutil

import pytest

NO_COMPILER = pytest.mark.skipif(
    not (os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")),
    reason="torch.compile needs a C++ compiler",
)

"""The build hook: installs and wheels hold the native kernels where a C++ compiler is, and work without them too."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SCRIPT = Path("simulator/native/build.py")


class NativeHook(BuildHookInterface):  # type: ignore[type-arg]
    """Of pyproject.toml's `hooks.custom` of wheels, editable ones too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build what is missing or out of date; the libraries belong to a wheel though git ignores them."""
        spec = importlib.util.spec_from_file_location("native_build", Path(self.root) / SCRIPT)
        assert spec and spec.loader
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        build.main(["--optional"])
        if build.is_current():
            files = [SCRIPT.parent / "lib" / f"{name}.so" for name in build.variants()]
            build_data["artifacts"] += [f"/{file.as_posix()}" for file in files]
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"  # C functions alone: any Python, one system

"""Numba, imported so that no file of the working directory has a say."""

import sys
import warnings
from types import ModuleType


def load_numba() -> ModuleType:
    """Import Numba, which would read `.numba_config.yaml` in the working directory: where it keeps compiled code, say,
    which is unpickled. Its variables NUMBA_... of the environment do the same, and hold.

    Raises:
        ImportError: it is not installed.
    """
    if "numba" not in sys.modules:
        warnings.filterwarnings("ignore", "A Numba config file is found")
        # It looks once, while it is imported, whether there is YAML at all.
        yaml = sys.modules.get("yaml")
        sys.modules["yaml"] = None  # type: ignore[assignment]
        try:
            import numba  # noqa: F401
        finally:
            del sys.modules["yaml"]
            if yaml is not None:
                sys.modules["yaml"] = yaml
    return sys.modules["numba"]

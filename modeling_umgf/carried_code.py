"""The code that a saved model or processor carries, so that it loads where this package is not installed."""

import os
import re
import shutil
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_import_files

ABSOLUTE_IMPORT = re.compile(r"^(\s*)from modeling_umgf\.(\w+) import", re.MULTILINE)


def carry_code(folder: str | os.PathLike) -> None:
    """Complete the code that transformers has put into a folder.

    transformers copies the file of a class and what that imports relatively. A system that is defined outside this
    package imports it by its name: those imports are made relative, and the modules they name are copied as well.

    Args:
        folder: where a model, a configuration or a processor has just been saved.
    """
    for path in Path(folder).glob("*.py"):
        code = path.read_text(encoding="utf-8")
        modules = {match[2] for match in ABSOLUTE_IMPORT.finditer(code)}
        if not modules:
            continue
        path.write_text(ABSOLUTE_IMPORT.sub(r"\1from .\2 import", code), encoding="utf-8")
        for module in modules:
            source = Path(__file__).with_name(f"{module}.py")
            for file in (source, *get_relative_import_files(str(source))):
                shutil.copy(file, folder)

"""Execute the code blocks of one page in their order: Python in one namespace, shell commands in the same folder."""

import json
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    namespace = {"__name__": "page"}
    for language, place, code in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        print(f"--- {place}", file=sys.stderr, flush=True)
        if language == "python":
            exec(compile(code, place, "exec"), namespace)
        elif subprocess.run(["bash", "-euo", "pipefail", "-c", code]).returncode:
            sys.exit(f"{place}: failed")

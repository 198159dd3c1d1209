"""`batchrunner validate` answers in half a second: reading a spec loads nothing heavy."""

import subprocess
import sys

CODE = """
import time
began = time.process_time()
from batchrunner.spec import BatchSpec
spec = BatchSpec.from_text(
    "capability: a:b\\nsource: in\\n"
    "sink: {uri: s3://b/x, format: parquet, schema: {a: 'list<struct<b: uuid>>', c: [int64]}}\\n"
    "execution: {concurrency: [1, 2]}\\n",
    origin="x.yaml",
)
repr(spec), spec.kept_text
from batchrunner.capability import Code
from batchrunner.spec.fingerprint import decisive_fields, fingerprint
fingerprint(decisive_fields(spec, code=Code({"a.py": "{}"})))
took = time.process_time() - began
import sys
heavy = {"ray", "pyarrow", "pandas", "numpy", "s3fs", "fsspec", "click", "rich"} & set(sys.modules)
print(took, *heavy)
"""


def test_reading_a_spec_is_cheap():
    """0.3 s of CPU beyond the interpreter, and no heavy module, in a process of its own."""
    took = []
    for _ in range(5):
        answer = subprocess.run(
            [sys.executable, "-c", CODE], check=True, capture_output=True, text=True
        ).stdout.split()
        assert [] == answer[1:]
        took.append(float(answer[0]))

    assert min(took) <= 0.3

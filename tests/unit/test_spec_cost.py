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

ONE_MODEL = """
import time
began = time.process_time()
import pydantic
class Model(pydantic.BaseModel):
    number: int = 1
Model()
print(time.process_time() - began)
"""


def answer_of(code):
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_reading_a_spec_is_cheap():
    """It takes no heavy module, and the CPU time of three models of pydantic's: 0.3 s on an idle machine.

    Measured beside it: two programs on one core take twice the CPU time each.
    """
    took, one_model = [], []
    for _ in range(5):
        seconds, *heavy = answer_of(CODE)
        assert heavy == []
        took.append(float(seconds))
        one_model.append(float(answer_of(ONE_MODEL)[0]))

    assert min(took) <= 3.3 * min(one_model)

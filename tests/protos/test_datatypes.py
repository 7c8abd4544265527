"""The table of datatypes, which knows without numpy what numpy knows."""

import subprocess
import sys

import numpy as np
import pytest

from edgeway.datatypes import DATATYPES, nbytes


@pytest.mark.parametrize("datatype", DATATYPES, ids=lambda datatype: datatype.name)
def test_sizes_are_those_of_numpy(datatype):
    if datatype.numpy is None:
        assert datatype.name == "BYTES"
    else:
        assert np.dtype(datatype.numpy).itemsize == datatype.itemsize
        assert nbytes(datatype.name, (2, 3)) == np.zeros((2, 3), datatype.numpy).nbytes


def test_the_table_needs_no_numpy():
    code = "import sys, edgeway.datatypes; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

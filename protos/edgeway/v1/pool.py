"""The private descriptor pool in which all of Edgeway's messages live.

tritonclient and kserve register the same ``inference.*`` names in protobuf's default pool, and the second import in
one process dies of it. In a pool of our own ours meet nobody's.
"""

from __future__ import annotations

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()

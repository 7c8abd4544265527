"""Remote targets: endpoints of the Open Inference Protocol that are not on this device.

``endpoint`` speaks gRPC; ``dispatch.remote`` makes a worker of it that ranks, races and fails like any other.
"""

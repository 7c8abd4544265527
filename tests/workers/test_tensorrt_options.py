"""What a worker of TensorRT is told, and the shapes that an engine is built for."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from workers.backend import BackendUnavailable, ModelRejected, TensorSpec
from workers.tensorrt.options import Range, misfit, open_ones, provider_options, ranges_of, read_options

PICTURES = TensorSpec("x", "FP32", (-1, 3, -1, -1))
SIZES = {"min": [1, 3, 64, 64], "opt": [1, 3, 224, 224], "max": [8, 3, 512, 512]}


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        ({"fp61": True}, "options.fp61: unknown; there are bf16"),
        ({"fp16": "yes"}, "options.fp16: expected true or false, got 'yes'"),
        ({"builderLevel": 6}, "options.builderLevel: expected a whole number from 0 to 5, got 6"),
        ({"dla": True}, "options.dla: expected a whole number"),
        ({"workspaceMB": -1}, "options.workspaceMB"),
        ({"through": "magic"}, "options.through: expected auto or onnxruntime or native"),
        ({"profiles": []}, "options.profiles: expected ranges"),
        ({"profiles": {"x": {"min": [1]}}}, "options.profiles.x: expected"),
        ({"profiles": {"x": {"min": [1], "max": [0]}}}, "options.profiles.x.max: expected whole numbers above 0"),
        ({"profiles": {"x": {"min": [2], "max": [1]}}}, "options.profiles.x: min, opt and max"),
        ({"profiles": {"x": {"min": [1, 1], "max": [1]}}}, "options.profiles.x: min, opt and max"),
        ({"calibrationTable": "/t"}, "options.calibrationTable has no effect without int8"),
    ],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_refused_by_its_name(raw, where):
    with pytest.raises(BackendUnavailable) as refused:
        read_options(raw)
    assert where in str(refused.value)


def test_a_batch_is_of_one_to_eight_where_nobody_says():
    spec = TensorSpec("x", "FP32", (-1, 3))
    ranges = ranges_of("m", [spec], read_options({}))
    assert ranges == {"x": Range((1, 3), (1, 3), (8, 3))}
    assert ranges_of("m", [spec], read_options({"maxBatch": 2}))["x"].most == (2, 3)


def test_a_size_that_is_open_behind_the_first_needs_a_range():
    with pytest.raises(ModelRejected, match=r"options\.profiles\.x: \{min"):
        ranges_of("m", [PICTURES], read_options({}))
    ranges = ranges_of("m", [PICTURES], read_options({"profiles": {"x": SIZES}}))
    assert ranges["x"] == Range((1, 3, 64, 64), (1, 3, 224, 224), (8, 3, 512, 512))


def test_a_models_own_range_goes_before_that_of_all_models():
    small = {**SIZES, "opt": [1, 3, 64, 64], "max": [1, 3, 64, 64]}
    options = read_options({"profiles": {"x": SIZES, "small/x": small}})
    assert ranges_of("small", [PICTURES], options)["x"].most == (1, 3, 64, 64)
    assert ranges_of("large", [PICTURES], options)["x"].most == (8, 3, 512, 512)


def test_a_range_that_contradicts_the_model_is_refused():
    for sizes in ({"min": [1, 1], "max": [2, 2]}, {"min": [1, 4, 9, 9], "max": [1, 4, 9, 9]}):
        with pytest.raises(ModelRejected, match="is no range of"):
            ranges_of("m", [PICTURES], read_options({"profiles": {"x": sizes}}))


def test_the_provider_is_told_all_of_it_in_its_own_words():
    options = read_options(
        {"fp16": True, "int8": True, "calibrationTable": "/t", "workspaceMB": 512, "builderLevel": 3, "dla": 1}
    )
    ranges = {"x:0": Range((1, 3), (1, 3), (8, 3)), "y": Range((1,), (2,), (4,))}
    assert provider_options(options, ranges, "/cache/k", "/cache/t", "table") == {
        "device_id": "0",
        "trt_fp16_enable": "True",
        "trt_int8_enable": "True",
        "trt_int8_calibration_table_name": "table",
        "trt_int8_use_native_calibration_table": "False",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "/cache/k",
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": "/cache/t",
        "trt_max_workspace_size": str(512 << 20),
        "trt_builder_optimization_level": "3",
        "trt_dla_enable": "True",
        "trt_dla_core": "1",
        "trt_profile_min_shapes": "x:0:1x3,y:1",
        "trt_profile_opt_shapes": "x:0:1x3,y:2",
        "trt_profile_max_shapes": "x:0:8x3,y:4",
    }


def test_without_a_cache_nothing_is_kept_and_no_shapes_are_told_of_fixed_inputs():
    told = provider_options(read_options({}), {}, "", "", "")
    assert told == {
        "device_id": "0",
        "trt_fp16_enable": "False",
        "trt_int8_enable": "False",
        "trt_engine_cache_enable": "False",
        "trt_timing_cache_enable": "False",
    }
    with pytest.raises(ModelRejected, match="comma"):
        provider_options(read_options({}), {"a,b": Range((1,), (1,), (1,))}, "", "", "")


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=4), st.data())
def test_a_shape_fits_only_between_the_least_and_the_most(sizes, data):
    least = tuple(low for low, _ in sizes)
    most = tuple(low + more for low, more in sizes)
    shape = tuple(data.draw(st.integers(0, 20)) for _ in sizes)
    wrong = misfit({"x": shape}, {"x": Range(least, least, most)})
    assert (wrong == "") == all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
    assert misfit({"x": (*shape, 1)}, {"x": Range(least, least, most)})
    assert misfit({"fixed": shape}, {"x": Range(least, least, most)}) == ""


@given(st.lists(st.sampled_from([-1, 1, 3]), max_size=4))
def test_only_open_inputs_are_told_to_a_builder(shape):
    spec = TensorSpec("x", "FP32", tuple(shape))
    assume(-1 not in shape[1:])
    told = open_ones([spec], ranges_of("m", [spec], read_options({})))
    assert ("x" in told) == (-1 in shape)

"""What of a folder is a model repository."""

from gateway.models.repository import scan


def files(root, *names):
    for name in names:
        (root / "m" / "1").mkdir(parents=True, exist_ok=True)
        (root / "m" / "1" / name).write_bytes(b"x")
    found = scan(root)
    return [each.path.name for each in found.get("m", ())]


def test_a_model_file_may_have_any_suffix(tmp_path):
    assert files(tmp_path, "model.linear") == ["model.linear"]


def test_beside_a_suffix_that_is_known_others_are_no_model(tmp_path):
    assert files(tmp_path, "model.bin", "model.onnx", "model.tflite") == ["model.onnx"]


def test_what_is_not_called_model_or_is_not_finished_is_none(tmp_path):
    assert (
        files(tmp_path, "labels.txt", "model", "model.tmp", "model.onnx.part", ".model.onnx", "model.onnx.data") == []
    )


def test_a_folder_is_no_model_file(tmp_path):
    (tmp_path / "m" / "1" / "model.savedmodel").mkdir(parents=True)
    assert files(tmp_path) == []

"""The ONNX program of a detector that looks at regions of several maps finds what the student finds."""

import torch
from small_programs import assert_same, assert_without_paths, found_by, programs_of, student_of
from small_students import pixels


def test_faster_r_cnn_in_onnx_on_squares(tmp_path):
    student = student_of("fasterrcnn_cifar_resnet8_fpn", val_crop="squash")
    (program,) = programs_of(student, tmp_path, "onnx").values()
    for count in (1, 3):
        images, sizes = pixels(count, 64), torch.tensor([[64, 64]] * count)
        assert_same(program(images, sizes), found_by(student, images, sizes))
    assert_without_paths(tmp_path)

"""Decoding of the person detector, against numbers worked out by hand."""

import numpy as np

from lisa_video.detectors.ssd import anchor_centres, best_person, decode_points, overlap


def test_anchors_are_as_many_as_the_network_has_outputs() -> None:
    centres = anchor_centres()
    assert centres.shape == (2254, 2)
    np.testing.assert_allclose(centres[:3] * 224, [[4, 4], [4, 4], [12, 4]])
    np.testing.assert_allclose(centres[1568] * 224, [8, 8])
    # Three layers of stride 32 share one grid: six anchors for each of its cells.
    np.testing.assert_allclose(centres[1960:1967] * 224, [[16, 16]] * 6 + [[48, 16]])
    np.testing.assert_allclose(centres[-1] * 224, [208, 208])


def test_boxes_and_points_are_relative_to_the_anchor() -> None:
    raw = np.array([[22.4, 0, 44.8, 89.6, 0, 0, 0, -112, 11.2, 0, 0, 22.4]], np.float32)
    boxes, points = decode_points(raw, np.array([[0.5, 0.5]], np.float32))
    np.testing.assert_allclose(boxes, [[0.5, 0.3, 0.7, 0.7]], atol=1e-6)
    np.testing.assert_allclose(
        points[0], [[0.5, 0.5], [0.5, 0], [0.55, 0.5], [0.5, 0.6]], atol=1e-6
    )


def test_overlap_is_intersection_over_union() -> None:
    box = np.array([0, 0, 2, 2], np.float32)
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [2, 2, 3, 3], [1, 1, 1, 1]], np.float32)
    np.testing.assert_allclose(overlap(box, boxes), [1, 1 / 7, 0, 0])


def test_detections_of_the_best_person_are_averaged_by_score() -> None:
    scores = np.array([0.6, 0.9, 0.8], np.float32)
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.9], [5, 5, 6, 6]], np.float32)
    points = np.stack([np.full((4, 2), value, np.float32) for value in (10, 20, 99)])
    np.testing.assert_allclose(best_person(scores, boxes, points), np.full((4, 2), 16))


def test_a_box_without_area_still_has_its_points() -> None:
    points = np.ones((1, 4, 2), np.float32)
    found = best_person(np.ones(1, np.float32), np.zeros((1, 4), np.float32), points)
    np.testing.assert_array_equal(found, points[0])

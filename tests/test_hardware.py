import json
import os

import torch

from lisa_video.hardware import describe_hardware, peak_memory_mb


def test_this_machine_is_described_in_json_values() -> None:
    found = describe_hardware()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"] and found["cores"] == os.cpu_count() and found["memory_gib"] > 0.1
    assert len(found["gpus"]) == torch.cuda.device_count()
    assert 1 < peak_memory_mb(torch.device("cpu")) < 1024 * found["memory_gib"]
